import HTTP2Engine

extension HTTP2Session {
    /// Takes bytes in pieces of at most `piece`; `act` is called with the piece after each frame of it.
    func take(_ bytes: [UInt8], piece: Int, now: UInt64, act: ([UInt8]) -> Void) {
        var rest = bytes[...]
        while !rest.isEmpty {
            let part = Array(rest.prefix(piece))
            rest = rest.dropFirst(part.count)
            var offset = 0
            while offset < part.count {
                unsafe receive(part.span.bytes, at: &offset, now: now)
                act(part)
            }
        }
    }

    /// All that the session has to say; bodies are taken from `outgoing`, by the owner of their stream.
    func output(of outgoing: inout [UInt64: [UInt8]]) -> [UInt8] {
        var bytes: [UInt8] = []
        while true {
            switch nextOutput() {
            case .nothing: return bytes
            case .control:
                let span = control
                for i in 0..<span.byteCount { bytes.append(Span<UInt8>(_bytes: span)[i]) }
            case .data(let owner, let count):
                for i in 0..<9 { bytes.append(frameHead[i]) }
                bytes += outgoing[owner, default: []].prefix(count)
                outgoing[owner, default: []].removeFirst(count)
            }
        }
    }
}
