import Model
import Testing

@Suite struct FieldGrammarTests {
    private static let token = Set(
        "!#$%&'*+-.^_`|~0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ".utf8)

    @Test func setsHoldWhatTheirGrammarsSay() {
        let letters = Set("0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ".utf8)
        for byte in UInt8.min...UInt8.max {
            #expect(ByteSet.token.contains(byte) == Self.token.contains(byte))
            #expect(ByteSet.unreserved.contains(byte) == (letters.contains(byte) || "-._~".utf8.contains(byte)))
            #expect(ByteSet.hostName.contains(byte) == (letters.contains(byte) || "-._".utf8.contains(byte)))
            #expect(ByteSet.visible.contains(byte) == (0x21...0x7e).contains(byte))
            #expect(
                ByteSet.cookieOctet.contains(byte)
                    == ((0x21...0x7e).contains(byte) && !"\",;\\".utf8.contains(byte)))
            #expect(ByteSet.cookieAttribute.contains(byte) == ((0x20...0x7e).contains(byte) && byte != 0x3b))
        }
    }

    @Test func aTokenIsATokenInEveryByte() {
        for byte in UInt8.min...UInt8.max {
            let name = [0x61, byte]
            let isToken = FieldGrammar.isToken(name.span)
            #expect(isToken == Self.token.contains(byte))
            let problem = FieldGrammar.problem(name: name.span)
            #expect((problem == nil) == isToken)
            let value = [byte, 0x62]
            let isValue = FieldGrammar.isValue(value.span)
            #expect(isValue == (byte == 9 || byte >= 32 && byte != 127))
            let valueProblem = FieldGrammar.problem(value: value.span)
            #expect((valueProblem == nil) == isValue)
        }
        let empty: [UInt8] = []
        let isToken = FieldGrammar.isToken(empty.span)
        #expect(!isToken)
    }

    private func problem(setting name: String) -> String? {
        let name = bytes(name)
        return FieldGrammar.problem(setting: name.span)
    }

    @Test(arguments: [
        "Connection", "Transfer-Encoding", "content-length", "UPGRADE", "te", "Trailer", "host", "Keep-Alive",
        "Proxy-Connection", "", "a b", "a:", "a\r\n", String(repeating: "a", count: 257),
    ])
    func aScriptMayNotSet(_ name: String) {
        #expect(problem(setting: name) != nil)
    }

    @Test(arguments: ["X-User", "Cookie", "Set-Cookie", "Authorization", "Content-Type", "X-Forwarded-For", "a"])
    func aScriptMaySet(_ name: String) {
        #expect(problem(setting: name) == nil)
    }

    @Test func messagesSayWhatAndWhere() {
        let bad = bytes("a\r\nb: c")
        let problem = FieldGrammar.problem(value: bad.span)
        #expect(problem == "a header value holds CR at byte 2; it may not hold control bytes")
        let name = bytes("a b")
        let nameProblem = FieldGrammar.problem(name: name.span)
        #expect(nameProblem?.hasPrefix("a header name holds a space at byte 2") == true)
        #expect(FieldGrammar.describe(0x07) == "byte 0x07")
        #expect(FieldGrammar.describe(0xff) == "byte 0xff")
    }

    /// Every known name is found in every case, and nothing near it.
    @Test(arguments: FieldName.allCases)
    func knowsItsNames(_ name: FieldName) {
        let spelled = bytes("\(name.text)")
        guard name != .other else {
            #expect(spelled.isEmpty)
            return
        }
        let upper = bytes(text(spelled).uppercased())
        let found = [FieldName(spelled.span), FieldName(upper.span)]
        #expect(found == [name, name])
        for i in spelled.indices {
            for byte in UInt8.min...UInt8.max where byte != spelled[i] && byte != upper[i] {
                var near = spelled
                near[i] = byte
                let other = FieldName(near.span)
                #expect(other == .other || text(near) == "\(other.text)", "\(near)")
            }
        }
        let longer = spelled + [0x61]
        let shorter = Array(spelled.dropLast())
        let near = [FieldName(longer.span), FieldName(shorter.span)]
        #expect(near == [.other, .other])
    }
}
