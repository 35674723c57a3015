import Testing

@testable import HTTPWire

@Suite struct ClientHelloTests {
    /// A ClientHello of these extensions, without the frames of records.
    static func message(_ extensions: [(type: Int, body: [UInt8])]?) -> [UInt8] {
        func long(_ body: [UInt8]) -> [UInt8] { [UInt8(body.count >> 8), UInt8(body.count & 255)] + body }
        var body: [UInt8] = [3, 3] + [UInt8](repeating: 7, count: 32) + [2, 9, 9]
        body += long([0x13, 1, 0x13, 2]) + [1, 0]
        if let extensions {
            body += long(extensions.flatMap { [UInt8($0.type >> 8), UInt8($0.type & 255)] + long($0.body) })
        }
        return [1, 0, UInt8(body.count >> 8), UInt8(body.count & 255)] + body
    }

    static func name(_ host: String, type: UInt8 = 0) -> (type: Int, body: [UInt8]) {
        let host = Array(host.utf8)
        return (
            0,
            [UInt8((host.count + 3) >> 8), UInt8((host.count + 3) & 255), type, UInt8(host.count >> 8)]
                + [UInt8(host.count & 255)] + host
        )
    }

    static func records(_ message: [UInt8], each: Int = 16_384) -> [UInt8] {
        stride(from: 0, to: message.count, by: each).flatMap { start -> [UInt8] in
            let part = message[start..<min(start + each, message.count)]
            return [22, 3, 1, UInt8(part.count >> 8), UInt8(part.count & 255)] + part
        }
    }

    static let plain = message([(43, [2, 3, 4]), name("Db.Shop.test"), (16, [0, 3, 2, 0x68, 0x32])])
    static let seeds = [records(plain), records(plain, each: 5), records(message(nil))]

    private func parse(_ input: [UInt8]) -> ClientHello.Progress { ClientHello.parse(input.span) }

    private func host(_ text: String) -> ClientHello.Progress { .complete(serverName: Array(text.utf8)) }

    @Test(arguments: [16_384, 60, 5, 1])
    func nameIsFoundHoweverItIsCut(each: Int) {
        let input = Self.records(Self.plain, each: each)
        #expect(parse(input) == host("db.shop.test"))
        // What follows it is none of its business.
        #expect(parse(input + [1, 2, 3]) == host("db.shop.test"))
        var scan = ClientHello.Scan()
        for count in 0..<input.count {
            let part = Array(input.prefix(count))
            let progress = scan.next(part.span)
            #expect(parse(part) == .needMore && progress == .needMore)
        }
        let progress = scan.next(input.span)
        #expect(progress == host("db.shop.test"))
        #expect(OpeningChecks.opening(input + [9]) == nil)
    }

    @Test(
        arguments: [
            ([22, 3, 1, 0, 4, 1, 0, 0x40, 0], true), ([22, 3, 1, 0, 4, 1, 0, 0x40, 1], false),
            ([22, 3, 1, 0, 4, 1, 2, 0, 0], false), ([22, 3, 1, 0, 4, 1, 0xff, 0xff, 0xff], false),
            ([22, 3, 1, 0, 1, 1, 22, 3, 1, 0, 0, 22, 3, 1, 0, 3, 2, 0, 0], false),
            ([22, 3, 1, 0, 1, 1, 22, 3, 1, 0, 3, 0, 2, 0], true), ([22, 3, 1, 0, 4, 2, 2, 0, 0], true),
            ([22, 3, 1, 0, 3, 1, 2, 0, 23, 3, 1, 0, 4, 1, 2, 0, 0], true), ([23, 3, 1, 0, 4, 1, 2, 0, 0], true),
            ([22, 3, 1, 0, 4, 1, 2, 0], true), ([], true),
            // A second one: in the same record, behind early data (RFC 8446 §4.2.10), behind the record that means nothing.
            ([22, 3, 1, 0, 9, 1, 0, 0, 1, 7, 1, 2, 0, 0], false), ([22, 3, 1, 0, 9, 1, 0, 0, 1, 7, 1, 0, 2, 0], true),
            ([22, 3, 1, 0, 4, 1, 0, 0, 0, 23, 3, 3, 0, 2, 1, 2, 22, 3, 3, 0, 4, 1, 2, 0, 0], false),
            ([22, 3, 1, 0, 4, 1, 0, 0, 0, 20, 3, 3, 0, 1, 1, 22, 3, 3, 0, 4, 1, 2, 0, 0], false),
            // What stands inside of one that is long.
            ([22, 3, 1, 0, 12, 1, 0, 0, 8, 1, 2, 0, 0, 1, 2, 0, 0], true),
        ] as [([UInt8], Bool)])
    func lengthIsJudgedAsSoonAsItIsSaid(bytes: [UInt8], isFit: Bool) {
        var whole = ClientHello.Size()
        #expect(whole.isFit(bytes.span, changeSeals: false) == isFit)
        var size = ClientHello.Size()
        for (index, byte) in bytes.enumerated() {
            let one = [byte]
            let result = size.isFit(one.span, changeSeals: false)
            #expect(result == (isFit || index + 1 < bytes.count))
        }
        let nothing: [UInt8] = []
        let stays = size.isFit(nothing.span, changeSeals: false)
        #expect(stays == isFit)
    }

    /// In TLS 1.2 a client that resumes sends an encrypted Finished next: by chance it may look like anything.
    @Test func whatIsEncryptedIsNotJudged() {
        let hello: [UInt8] = [22, 3, 1, 0, 4, 1, 0, 0, 0]
        let rest: [UInt8] = [20, 3, 3, 0, 1, 1, 22, 3, 3, 0, 4, 1, 2, 0, 0]
        var size = ClientHello.Size()
        let results = [size.isFit(hello.span, changeSeals: false), size.isFit(rest.span, changeSeals: true)]
        #expect(results == [true, true])
    }

    @Test(arguments: [("shop.test.", "shop.test"), ("shop.test..", "shop.test."), (".", "")])
    func dotAtTheEndIsNoPartOfTheName(sent: String, read: String) {
        #expect(parse(Self.records(Self.message([Self.name(sent)]))) == host(read))
    }

    @Test func helloWithoutAName() {
        #expect(parse(Self.records(Self.message(nil))) == host(""))
        #expect(parse(Self.records(Self.message([]))) == host(""))
        #expect(parse(Self.records(Self.message([(43, [2, 3, 4])]))) == host(""))
    }

    static let broken: [(String, [UInt8])] = {
        func changed(_ change: (inout [UInt8]) -> Void) -> [UInt8] {
            var copy = plain
            change(&copy)
            return records(copy)
        }
        let longer = changed {
            $0.append(0)
            $0[3] += 1
        }
        return [
            ("HTTP", Array("GET / HTTP/1.1\r\n".utf8)), ("SSH", Array("SSH-2.0-x\r\n".utf8)),
            ("an alert", [21, 3, 1, 0, 2, 2, 40]), ("SSL 2", [0x80, 0x2e, 1, 3, 1]), ("version 4", [22, 4, 0]),
            ("an empty record", [22, 3, 1, 0, 0]), ("a record of 16,385 bytes", [22, 3, 1, 0x40, 1]),
            ("a ServerHello", records([2, 0, 0, 1, 0])), ("a message of 16 MiB", records([1, 0xff, 0xff, 0xff])),
            ("a message of 16,385 bytes", records([1, 0, 0x40, 1])), ("an empty message", records([1, 0, 0, 0])),
            ("a session id beyond the end", changed { $0[38] = 255 }),
            ("ciphers beyond the end", changed { $0[41] = 255 }),
            ("extensions that end early", longer),
            ("an address for a name", records(message([name("a.test", type: 1)]))),
            ("an empty name", records(message([name("")]))), ("no list", records(message([(0, [])]))),
            ("a list that is too long", records(message([(0, [0, 9, 0, 0, 1, 97])]))),
            ("a name that is too long", records(message([(0, [0, 4, 0, 0, 2, 97])]))),
            ("a name of 256 bytes", records(message([name(String(repeating: "a", count: 256))]))),
        ]
    }()

    @Test(arguments: broken)
    func helloThatIsNone(what: String, input: [UInt8]) {
        #expect(parse(input) == .other)
        #expect(OpeningChecks.opening(input) == nil)
    }

    @Test func waitsNoLongerThanItsBound() {
        let message = Self.message([(21, [UInt8](repeating: 0, count: 16_000)), Self.name("late.test")])
        #expect(parse(Self.records(message)) == host("late.test"))
        // In records of one byte it would take 98 KiB.
        let input = Self.records(message, each: 1)
        #expect(parse(Array(input.prefix(ClientHello.maxCount - 1))) == .needMore)
        #expect(parse(Array(input.prefix(ClientHello.maxCount + 5))) == .other)
    }
}
