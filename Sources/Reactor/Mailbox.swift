// How other threads reach a loop: a list under a lock, and one ring of a bell however many values are posted.
internal import CLinux
internal import Glibc
internal import Synchronization

/// An eventfd: rings a poller from any thread.
package final class Bell: Sendable {
    let descriptor: Int32

    package init() throws(SystemError) {
        let fd = eventfd(0, Int32(EFD_NONBLOCK) | Int32(EFD_CLOEXEC))
        if fd < 0 { throw .last("eventfd") }
        descriptor = fd
    }

    deinit {
        _ = close(descriptor)
    }

    package func ring() {
        var one: UInt64 = 1
        // SAFETY: eight bytes, as eventfd asks. It can only refuse when the counter is full, and then it is ringing.
        _ = unsafe write(descriptor, &one, 8)
    }

    /// Takes the ring off, so that the next one makes an edge.
    package func silence() {
        var count: UInt64 = 0
        // SAFETY: eight bytes, as eventfd asks.
        _ = unsafe read(descriptor, &count, 8)
    }
}

/// Values on their way to a loop, in the order in which they were posted.
package final class Mailbox<Message: Sendable>: Sendable {
    private let messages = Mutex<[Message]>([])
    package let bell: Bell

    package init() throws(SystemError) {
        bell = try Bell()
    }

    /// Can be called from any thread. Only the first value after a collection rings.
    package func post(_ message: Message) {
        let first = messages.withLock { queue in
            queue.append(message)
            return queue.count == 1
        }
        if first { bell.ring() }
    }

    /// Called by the loop when the bell has rung.
    package func collect() -> [Message] {
        bell.silence()
        return messages.withLock { queue in
            let all = queue
            queue = []
            return all
        }
    }
}
