// A loop and its thread: waits for the kernel, hands events to the loop, takes what other threads have posted.
internal import HTTPWire
internal import Model
internal import Reactor
internal import Synchronization
internal import Telemetry

/// What other threads tell a worker.
enum WorkerMessage: Sendable {
    case adopt(Publication)
    /// These ports of TCP and UDP services, and no others.
    case listen([PortListener])
    case drain(delay: UInt64, timeout: UInt64)
    /// Everything is closed, finished or not.
    case stop
    /// Hand the counters in: how they are read without a lock on the path.
    case report
}

/// A port of TCP or UDP services on one loop. Who posts it gives it away.
struct PortListener: Sendable {
    /// Told apart from an earlier one on the same port.
    let id: UInt32
    let kind: SocketKind
    let listener: Listener
}

/// Owned by its thread from `run` on.
///
/// `@unchecked Sendable`: it is made on the thread that starts the server, handed over once to the thread that runs
/// it, and from then on touched by that one alone; others talk to it through the mailbox, which is safe by itself.
final class Worker: @unchecked Sendable {
    let mailbox: Mailbox<WorkerMessage>
    /// When the current pass began, in milliseconds of the monotonic clock: read by the health check.
    private let heartbeat = Atomic<UInt64>(0)
    private let poller: Poller
    private let loop: Loop<KernelTransport>
    private let metrics: MetricsHub
    private var listeners: [Listener]
    /// How many of them, from the first on, are for plain HTTP; the others are for HTTPS.
    private let plainListeners: Int
    private var tcpListeners: [UInt32: Listener] = [:]
    /// Listeners with lower numbers have been here. One of them that is not in the table any more has been closed, and
    /// its descriptor may be another's by now.
    private var nextTCP: UInt32 = 0
    /// Listeners with connections that could not be taken for lack of descriptors.
    private var starving: [Int] = []
    private var starvingTCP: [UInt32] = []
    private var starvesUntil: UInt64 = 0
    private var drain = DrainMachine()
    private var isRunning = true

    init(
        number: Int, configuration: ProxyConfiguration, listeners: [Listener], mailbox: Mailbox<WorkerMessage>,
        publication: Publication, telemetry: LoopTelemetry, clients: ClientConnections?,
        sessionClients: ClientConnections?, metrics: MetricsHub
    ) throws(SystemError) {
        poller = try Poller()
        self.mailbox = mailbox
        self.metrics = metrics
        self.listeners = listeners
        plainListeners = configuration.listen.count
        let now = MonotonicClock.nanoseconds()
        loop = Loop(
            transport: KernelTransport(poller: poller), number: number, configuration: configuration,
            publication: publication, telemetry: telemetry, clients: clients, sessionClients: sessionClients,
            nanoseconds: now,
            seed: WallClock.nanoseconds() &+ UInt64(number) &* 0x9e37_79b9_7f4a_7c15)
        try poller.register(mailbox.bell, Token(kind: TokenKind.mailbox, index: 0, generation: 0))
        for (i, listener) in listeners.enumerated() {
            try poller.register(listener, Token(kind: TokenKind.listener, index: UInt32(i), generation: 0))
        }
    }

    /// Runs until the drain is over.
    func run() {
        while isRunning {
            let count = poller.wait(milliseconds: waitTime())
            loop.beginPass(nanoseconds: MonotonicClock.nanoseconds(), wallSeconds: WallClock.seconds())
            heartbeat.store(loop.now, ordering: .relaxed)
            var i = 0
            while i < count {
                let event = poller[i]
                i += 1
                switch event.token.kind {
                case TokenKind.downstream, TokenKind.upstream, TokenKind.arrival, TokenKind.datagramPort,
                    TokenKind.session:
                    loop.handle(event)
                case TokenKind.listener:
                    accept(Int(event.token.index))
                case TokenKind.tcpListener:
                    acceptTCP(event.token.index)
                case TokenKind.mailbox:
                    collect()
                default:
                    break
                }
            }
            loop.finishPass()
            if loop.now >= nextTick {
                nextTick = loop.now + TimerWheel.tickMilliseconds
                loop.tick()
                loop.telemetry.flush()
                if isStarving, loop.now >= starvesUntil { acceptStarved() }
                perform(drain.handle(.ticked(now: loop.now)))
            }
            if drain.isDraining, !loop.hasClients { perform(drain.handle(.emptied)) }
        }
        loop.closeAll()
        for listener in listeners { listener.close() }
        listeners = []
        closeTCP()
        loop.telemetry.flush()
        heartbeat.store(.max, ordering: .relaxed)
        metrics.loopEnded(loop.telemetry.metrics)
    }

    /// Milliseconds since the loop last came round, which it does once a second at least; 0 before its start and after
    /// its end.
    func silence(now: UInt64) -> UInt64 {
        let last = heartbeat.load(ordering: .relaxed)
        return last == 0 || last > now ? 0 : now - last
    }

    private var nextTick: UInt64 = 0

    private func waitTime() -> Int32 {
        if loop.hasReady { return 0 }
        var time = loop.wheel.wait(from: loop.now) ?? 1_000
        if isStarving { time = min(time, 100) }
        if let deadline = drain.deadline { time = min(time, deadline > loop.now ? deadline - loop.now : 0) }
        return Int32(truncatingIfNeeded: min(max(time, 1), 1_000))
    }

    // MARK: Accepting

    private func accept(_ index: Int) {
        guard index < listeners.count else { return }
        if !accept(listeners[index], index < plainListeners ? .http : .https), !starving.contains(index) {
            starving.append(index)
        }
    }

    private func acceptTCP(_ id: UInt32) {
        guard let listener = tcpListeners[id] else { return }
        if !accept(listener, .stream), !starvingTCP.contains(id) { starvingTCP.append(id) }
    }

    /// Takes all that wait; false if they could not be taken for lack of descriptors.
    private func accept(_ listener: Listener, _ kind: ListenerKind) -> Bool {
        while true {
            switch listener.accept() {
            case .accepted(let socket, let peer):
                loop.accepted(
                    socket, peer: Model.SocketAddress(peer), localPort: listener.address.port, kind: kind)
            case .again:
                continue
            case .wouldBlock, .failed:
                return true
            case .exhausted:
                // By edges no event will come for those that wait in the queue: the clock takes them up.
                starvesUntil = loop.now + 100
                return false
            }
        }
    }

    private var isStarving: Bool { !starving.isEmpty || !starvingTCP.isEmpty }

    private func acceptStarved() {
        let again = starving
        let againTCP = starvingTCP
        starving = []
        starvingTCP = []
        for index in again { accept(index) }
        for id in againTCP { acceptTCP(id) }
        loop.finishPass()
    }

    /// What is not among these any more is closed; connections that came by it stay.
    private func listen(_ all: [PortListener]) {
        loop.listen(all.filter { $0.kind == .datagrams })
        let wanted = all.filter { $0.kind == .stream }
        let new = wanted.filter { $0.id >= nextTCP }
        for listener in new { nextTCP = max(nextTCP, listener.id + 1) }
        guard !drain.isDraining else {
            for listener in new { listener.listener.close() }
            return
        }
        let kept = Set(wanted.map(\.id))
        for (id, listener) in tcpListeners where !kept.contains(id) {
            listener.close()
            tcpListeners[id] = nil
        }
        for listener in new {
            do {
                try poller.register(
                    listener.listener, Token(kind: TokenKind.tcpListener, index: listener.id, generation: 0))
                tcpListeners[listener.id] = listener.listener
                // Some may have come before anybody watched.
                acceptTCP(listener.id)
            } catch {
                // No memory to watch one more: the other loops take what comes.
                listener.listener.close()
                loop.telemetry.bug()
            }
        }
        loop.finishPass()
    }

    private func closeTCP() {
        for listener in tcpListeners.values { listener.close() }
        tcpListeners = [:]
    }

    // MARK: Messages

    private func collect() {
        for message in mailbox.collect() {
            switch message {
            case .adopt(let publication): loop.adopt(publication)
            case .listen(let wanted): listen(wanted)
            case .drain(let delay, let timeout):
                perform(drain.handle(.drainRequested(now: loop.now, delay: delay, timeout: timeout)))
            case .stop:
                isRunning = false
            case .report: loop.telemetry.metrics.publish()
            }
        }
    }

    private func perform(_ list: DrainMachine.List) {
        var actions = list
        while let action = actions.next() {
            switch action {
            case .answerWithClose:
                loop.announcesClose = true
            case .stopAccepting:
                // Datagrams go on for those who are known; who is new is to find another.
                loop.datagrams.refusesClients = true
                // Who stands in the queue has been told that somebody listens: they are served first.
                for i in listeners.indices { accept(i) }
                for id in tcpListeners.keys.sorted() { acceptTCP(id) }
                loop.finishPass()
                for listener in listeners { listener.close() }
                listeners = []
                closeTCP()
                starving = []
                starvingTCP = []
            case .closeIdle: loop.drain()
            case .closeAll: loop.closeAll()
            case .stop: isRunning = false
            }
        }
    }
}
