// The smallest client that measures more of the program than of itself.

import Foundation
import MoongateTesting

final class BlockingSocket {
    private let socket: RawSocket
    private var pending: [UInt8] = []

    init(port: UInt16) throws {
        socket = try RawSocket.connect(
            to: SocketAddress(host: "127.0.0.1", port: port), by: Deadline(after: .seconds(10)))
    }

    func write(_ text: String) throws { try socket.write(Array(text.utf8), by: Deadline(after: .seconds(10))) }

    private func fill() throws {
        let bytes = try socket.read(by: Deadline(after: .seconds(30)))
        guard !bytes.isEmpty else { throw BenchFailure(description: "the connection ended") }
        pending += bytes
    }

    /// Up to and with the empty line.
    func readHead() throws -> String {
        let end = Array("\r\n\r\n".utf8)
        while true {
            if let range = pending.firstRange(of: end) {
                let head = String(decoding: pending[..<range.upperBound], as: UTF8.self)
                pending.removeSubrange(..<range.upperBound)
                return head
            }
            try fill()
        }
    }

    func readBody(_ count: Int) throws -> String {
        while pending.count < count { try fill() }
        defer { pending.removeSubrange(..<count) }
        return String(decoding: pending[..<count], as: UTF8.self)
    }
}
