// The kernel's word that something in a directory has changed (inotify(7)). The only place in this room that makes
// system calls of its own: Foundation has no watcher on Linux.

internal import Glibc

/// One inotify instance. It is used by one thread, but for `wake`, which any thread may call while the owner is alive.
package final class Inotify: Sendable {
    package struct Event: Sendable, Equatable {
        package var watch: Int32
        package var mask: UInt32
        /// The entry within the watched directory; empty if the event is about the directory itself.
        package var name: String

        package var isOverflow: Bool { mask & UInt32(IN_Q_OVERFLOW) != 0 }
        /// The entry is complete, or gone: nobody is in the middle of writing it.
        package var endsWriting: Bool {
            mask & (UInt32(IN_CLOSE_WRITE) | UInt32(IN_DELETE) | UInt32(IN_MOVED_FROM) | UInt32(IN_MOVED_TO)) != 0
        }
        package var isModify: Bool { mask & UInt32(IN_MODIFY) != 0 }
        package var isIgnored: Bool { mask & UInt32(IN_IGNORED) != 0 }
    }

    private let descriptor: Int32
    /// A watch that exists only to be removed: the kernel then queues an event, which ends a wait.
    private let wakeWatch: Int32

    /// What came of the wish to watch a directory.
    package enum Answer: Sendable, Equatable {
        case watching(Int32)
        /// There is no such directory.
        case missing
        /// Too many watches (fs.inotify.max_user_watches), or not allowed.
        case refused
    }

    private static let entries =
        UInt32(IN_CREATE) | UInt32(IN_DELETE) | UInt32(IN_MOVED_FROM) | UInt32(IN_MOVED_TO) | UInt32(IN_DELETE_SELF)
        | UInt32(IN_MOVE_SELF) | UInt32(IN_ONLYDIR)
    private static let contents = UInt32(IN_CLOSE_WRITE) | UInt32(IN_MODIFY) | UInt32(IN_ATTRIB)

    /// Nil where the kernel refuses: too many instances (fs.inotify.max_user_instances) or descriptors.
    package init?() {
        descriptor = inotify_init1(Int32(IN_CLOEXEC) | Int32(IN_NONBLOCK))
        guard descriptor >= 0 else { return nil }
        // SAFETY: the kernel copies the path before the call returns.
        wakeWatch = unsafe inotify_add_watch(descriptor, "/", UInt32(IN_UNMOUNT) | UInt32(IN_ONLYDIR))
    }

    deinit { close(descriptor) }

    /// Watches a directory; the same directory again answers the same number. With `entriesOnly`, what is written into its
    /// files is not told.
    package func watch(_ directory: String, entriesOnly: Bool = false) -> Answer {
        let mask = entriesOnly ? Self.entries : Self.entries | Self.contents
        // SAFETY: the kernel copies the path before the call returns.
        let watch = unsafe inotify_add_watch(descriptor, directory, mask)
        guard watch >= 0 else { return errno == ENOENT || errno == ENOTDIR ? .missing : .refused }
        return watch == wakeWatch ? .refused : .watching(watch)
    }

    package func unwatch(_ watch: Int32) { _ = inotify_rm_watch(descriptor, watch) }

    /// Ends a wait of the owner, now or the next one.
    package func wake() { _ = inotify_rm_watch(descriptor, wakeWatch) }

    /// Waits until there are events, or until the time is over (then the answer is empty).
    package func wait(milliseconds: Int) -> [Event] {
        var entry = pollfd(fd: descriptor, events: Int16(POLLIN), revents: 0)
        // SAFETY: one entry is passed, and it outlives the call.
        guard unsafe poll(&entry, 1, Int32(clamping: milliseconds)) > 0 else { return [] }
        var buffer = [UInt8](repeating: 0, count: 64 << 10)
        var events: [Event] = []
        // Not until the queue is dry: a writer without pause must not hold the reader here.
        for _ in 0..<16 {
            // SAFETY: the kernel writes at most `count` bytes, which is the size of the array.
            let count = unsafe buffer.withUnsafeMutableBytes { unsafe read(descriptor, $0.baseAddress, $0.count) }
            guard count > 0 else { break }
            Self.decode(buffer[..<count], into: &events)
        }
        return events
    }

    /// Takes events apart: watch, mask, cookie, length of the name, all in the machine's order, then the name, padded
    /// with NULs. What is shorter than it says is left out.
    static func decode(_ bytes: ArraySlice<UInt8>, into events: inout [Event]) {
        func word(_ at: Int) -> UInt32 {
            (0..<4).reduce(0) { value, index in
                let shift = UInt32(1.littleEndian == 1 ? index : 3 - index) * 8
                return value | UInt32(bytes[at + index]) << shift
            }
        }
        var at = bytes.startIndex
        while at + 16 <= bytes.endIndex {
            let length = Int(word(at + 12))
            guard length <= bytes.endIndex - at - 16 else { return }
            let name = bytes[(at + 16)..<(at + 16 + length)].prefix { $0 != 0 }
            events.append(
                Event(
                    watch: Int32(bitPattern: word(at)), mask: word(at + 4),
                    name: String(decoding: name, as: UTF8.self)))
            at += 16 + length
        }
    }
}
