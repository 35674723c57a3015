// One thread per loop, with a name for the profiler and, if wished, a CPU of its own.
internal import CLinux
internal import Glibc
internal import Synchronization

package final class LoopThread: Sendable {
    private final class Start {
        let body: @Sendable () -> Void
        let name: String
        let cpu: Int?
        init(body: @escaping @Sendable () -> Void, name: String, cpu: Int?) {
            self.body = body
            self.name = name
            self.cpu = cpu
        }
    }

    private let thread: Mutex<pthread_t?>

    /// Starts a thread that runs `body` and ends with it. Signals are blocked in it: they belong to the process.
    package init(name: String, cpu: Int? = nil, _ body: @escaping @Sendable () -> Void) throws(SystemError) {
        let start = Start(body: body, name: name, cpu: cpu)
        var made = pthread_t()
        // SAFETY: the retained box is taken over, exactly once, by the new thread; if none was made, it is released
        // here.
        let box = unsafe Unmanaged.passRetained(start)
        let code = unsafe pthread_create(
            &made, nil,
            { argument in
                guard let argument = unsafe argument else { return nil }
                let start = unsafe Unmanaged<Start>.fromOpaque(argument).takeRetainedValue()
                var all = sigset_t()
                unsafe sigfillset(&all)
                unsafe pthread_sigmask(SIG_BLOCK, &all, nil)
                // The kernel takes the first fifteen bytes of a name.
                unsafe start.name.withCString { name in
                    _ = unsafe moongate_name_thread(name)
                }
                if let cpu = start.cpu { _ = moongate_pin_to_cpu(Int32(truncatingIfNeeded: cpu)) }
                start.body()
                return nil
            }, box.toOpaque())
        if code != 0 {
            unsafe box.release()
            throw SystemError(code: code, call: "pthread_create")
        }
        thread = Mutex(made)
    }

    /// Waits for the end; to be called once, and not from the thread itself.
    package func join() {
        let taken = thread.withLock { slot in
            let value = slot
            slot = nil
            return value
        }
        if let taken { _ = pthread_join(taken, nil) }
    }

    /// How many CPUs this process may use.
    package static var availableCPUs: Int { Int(moongate_cpu_count()) }
}
