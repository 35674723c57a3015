// The middle of a request's walk: one request and its response, whatever versions the two sides speak. It decides what
// happens next; the adapters on either side (HTTP/1.1 today) and the loop carry it out.

/// The life of one exchange.
///
/// ```
///            headReceived            forwardDecided           connected
///  waiting ───────────────▶ deciding ─────────────▶ connecting ────────▶ awaitingHead ──┐ informational
///                              │                      │   ▲  attemptFailed(retry)│  ▲────┘
///                 answerDecided│       failed, no     │   └───────────────────  │
///                              ▼       more attempts  ▼                         │ responseHeadReceived
///                           ┌─────────────────────────────┐                     ▼
///                           │        finished             │◀──────────────── streaming
///                           └─────────────────────────────┘  responseEnded      │
///                                          ▲                                    │ switched (101)
///                                          └──────────────── tunnelling ◀───────┘
/// ```
///
/// A connection whose bytes are passed as they are has no request: it is a tunnel as soon as it is connected.
///
/// ```
///          tunnelAsked            connected
///  waiting ───────────▶ opening ───────────▶ tunnelling
///                        │   ▲ attemptFailed(retry)
///                        └───┘
/// ```
///
/// The request's body runs beside these states: it may have ended or not in each of them, and a response may end
/// before the request has (RFC 9112 §9.3: an early response). What is then left of the request is the business of the
/// downstream connection, not of the exchange.
struct ExchangeMachine {
    enum Event: Equatable, Sendable {
        /// A request's head was admitted. `body` says whether anything follows it.
        case headReceived(body: Bool)
        /// There is no request: what the client sends goes to the upstream as it is.
        case tunnelAsked
        /// The request phases chose an upstream.
        case forwardDecided
        /// The request phases made a response, or nothing could be chosen.
        case answerDecided
        /// A connection to an endpoint is there: a fresh one or one from the pool.
        case connected
        /// This attempt has failed before any byte of a response. `retry`: another one is safe and allowed.
        case attemptFailed(retry: Bool)
        /// The request's body (with its trailers) has been read to its end.
        case requestEnded
        /// The upstream takes no more of the body; its response may still be on its way.
        case requestUndeliverable
        /// What follows the head is malformed or too large, or the exchange ran into a time-out.
        case failed
        /// A 1xx response other than 101 (RFC 9110 §15.2).
        case informationalReceived
        /// A 101 response that matches the request's upgrade.
        case switched
        case responseHeadReceived
        /// The response is complete. `reusable`: the upstream connection may carry another exchange.
        case responseEnded(reusable: Bool)
        /// The upstream ended or broke in the middle of its response.
        case responseBroken
        /// The downstream is gone: nobody is left to answer.
        case downstreamBroken
        /// One side of a tunnel will send no more.
        case downstreamEnded
        case upstreamEnded
    }

    enum Action: UInt8, MachineAction {
        /// Run the request phases, match a route, decide.
        case decide
        /// Choose an endpoint and lease or open a connection.
        case connect
        case sendRequestHead
        case sendInformational
        case sendResponseHead
        /// Write a response of our own: what the request phases made, or the failure that the exchange holds.
        case answer
        /// The response is complete: write what ends it.
        case endResponse
        /// The response cannot be completed: break it so that the peer sees that it is not whole.
        case breakResponse
        case releaseUpstream
        case closeUpstream
        case startTunnel
        case endUpstreamWrites
        case endDownstreamWrites
        /// Run the log phase, and forget the exchange.
        case finish
    }

    private enum Request: Equatable {
        case open
        case ended
        /// Read, if at all, only to be dropped.
        case undeliverable
    }

    private enum State: Equatable {
        case waiting
        /// The head is known, no connection to an upstream is held.
        case deciding(Request)
        /// An endpoint has been chosen; no byte of the request has gone out on this attempt.
        case connecting(Request)
        /// An upstream connection is held, and the head is on it. No final response has been seen.
        case awaitingHead(Request)
        /// A tunnel without a request, for which there is no connection yet.
        case opening
        /// The response's head is on its way downstream.
        case streaming(Request)
        /// Bytes pass both ways, unread. What has ended is named.
        case tunnelling(downstreamEnded: Bool, upstreamEnded: Bool)
        case finished
    }

    private var state: State = .waiting
    /// Events that no state expects: counted, never trapped on.
    private(set) var unexpected = 0

    typealias List = Actions<Action>

    // MARK: What is true now

    /// Whether the request's body may be read and passed on.
    var passesRequest: Bool {
        switch state {
        case .awaitingHead(.open), .streaming(.open): true
        case .waiting, .deciding, .connecting, .opening, .awaitingHead, .streaming, .tunnelling, .finished: false
        }
    }

    /// Whether the rest of the request has lost its reader while the response goes on.
    var dropsRequest: Bool {
        switch state {
        case .awaitingHead(.undeliverable), .streaming(.undeliverable): true
        case .waiting, .deciding, .connecting, .opening, .awaitingHead, .streaming, .tunnelling, .finished: false
        }
    }

    var requestHasEnded: Bool {
        switch state {
        case .deciding(.ended), .connecting(.ended), .awaitingHead(.ended), .streaming(.ended): true
        case .waiting, .deciding, .connecting, .opening, .awaitingHead, .streaming, .tunnelling, .finished: false
        }
    }

    /// A head was admitted, or refused and answered.
    var hasBegun: Bool {
        switch state {
        case .waiting: false
        case .deciding, .connecting, .opening, .awaitingHead, .streaming, .tunnelling, .finished: true
        }
    }

    var awaitsConnection: Bool {
        switch state {
        case .connecting: true
        case .waiting, .deciding, .opening, .awaitingHead, .streaming, .tunnelling, .finished: false
        }
    }

    var awaitsResponseHead: Bool {
        switch state {
        case .awaitingHead: true
        case .waiting, .deciding, .connecting, .opening, .streaming, .tunnelling, .finished: false
        }
    }

    var isStreaming: Bool {
        switch state {
        case .streaming: true
        case .waiting, .deciding, .connecting, .opening, .awaitingHead, .tunnelling, .finished: false
        }
    }

    var isTunnelling: Bool {
        switch state {
        case .tunnelling: true
        case .waiting, .deciding, .connecting, .opening, .awaitingHead, .streaming, .finished: false
        }
    }

    var isFinished: Bool {
        switch state {
        case .finished: true
        case .waiting, .deciding, .connecting, .opening, .awaitingHead, .streaming, .tunnelling: false
        }
    }

    // MARK: Events

    mutating func handle(_ event: Event) -> List {
        switch state {
        case .waiting: waiting(event)
        case .deciding(let request): deciding(event, request)
        case .connecting(let request): connecting(event, request)
        case .opening: opening(event)
        case .awaitingHead(let request): awaitingHead(event, request)
        case .streaming(let request): streaming(event, request)
        case .tunnelling(let downstreamEnded, let upstreamEnded): tunnelling(event, downstreamEnded, upstreamEnded)
        case .finished: List()
        }
    }

    private mutating func waiting(_ event: Event) -> List {
        switch event {
        case .headReceived(let body):
            state = .deciding(body ? .open : .ended)
            return List(.decide)
        case .tunnelAsked:
            state = .opening
            return List(.connect)
        case .failed, .answerDecided:
            // A head that was refused is answered without ever being an exchange's head.
            state = .finished
            return List(.answer, .finish)
        case .downstreamBroken, .downstreamEnded:
            state = .finished
            return List(.finish)
        case .forwardDecided, .connected, .attemptFailed, .requestEnded, .requestUndeliverable, .informationalReceived,
            .switched, .responseHeadReceived, .responseEnded, .responseBroken, .upstreamEnded:
            return surprised()
        }
    }

    private mutating func deciding(_ event: Event, _ request: Request) -> List {
        switch event {
        case .forwardDecided:
            state = .connecting(request)
            return List(.connect)
        case .answerDecided, .failed:
            state = .finished
            return List(.answer, .finish)
        case .requestEnded:
            state = .deciding(.ended)
            return List()
        case .downstreamBroken:
            state = .finished
            return List(.finish)
        case .downstreamEnded:
            return List()
        case .headReceived, .tunnelAsked, .connected, .attemptFailed, .requestUndeliverable, .informationalReceived,
            .switched, .responseHeadReceived, .responseEnded, .responseBroken, .upstreamEnded:
            return surprised()
        }
    }

    private mutating func connecting(_ event: Event, _ request: Request) -> List {
        switch event {
        case .connected:
            state = .awaitingHead(request)
            return List(.sendRequestHead)
        case .attemptFailed(let retry):
            if retry { return List(.connect) }
            state = .finished
            return List(.answer, .finish)
        case .answerDecided:
            // No endpoint at all.
            state = .finished
            return List(.answer, .finish)
        case .failed:
            state = .finished
            return List(.closeUpstream, .answer, .finish)
        case .requestEnded:
            state = .connecting(.ended)
            return List()
        case .downstreamBroken:
            state = .finished
            return List(.closeUpstream, .finish)
        case .downstreamEnded:
            return List()
        case .headReceived, .tunnelAsked, .forwardDecided, .requestUndeliverable, .informationalReceived, .switched,
            .responseHeadReceived, .responseEnded, .responseBroken, .upstreamEnded:
            return surprised()
        }
    }

    private mutating func opening(_ event: Event) -> List {
        switch event {
        case .connected:
            state = .tunnelling(downstreamEnded: false, upstreamEnded: false)
            return List(.startTunnel)
        case .attemptFailed(let retry):
            if retry { return List(.connect) }
            state = .finished
            return List(.breakResponse, .finish)
        case .answerDecided:
            // No endpoint at all, and no words to say it in.
            state = .finished
            return List(.breakResponse, .finish)
        case .failed:
            state = .finished
            return List(.closeUpstream, .breakResponse, .finish)
        case .downstreamBroken:
            state = .finished
            return List(.closeUpstream, .finish)
        case .downstreamEnded:
            return List()
        case .headReceived, .tunnelAsked, .forwardDecided, .requestEnded, .requestUndeliverable,
            .informationalReceived, .switched, .responseHeadReceived, .responseEnded, .responseBroken, .upstreamEnded:
            return surprised()
        }
    }

    private mutating func awaitingHead(_ event: Event, _ request: Request) -> List {
        switch event {
        case .requestEnded:
            if request == .open { state = .awaitingHead(.ended) }
            return List()
        case .requestUndeliverable:
            if request == .open { state = .awaitingHead(.undeliverable) }
            return List()
        case .informationalReceived:
            return List(.sendInformational)
        case .switched:
            state = .tunnelling(downstreamEnded: false, upstreamEnded: false)
            return List(.sendResponseHead, .startTunnel)
        case .responseHeadReceived:
            state = .streaming(request)
            return List(.sendResponseHead)
        case .attemptFailed(let retry):
            if retry {
                // What one endpoint would not take, the next one may.
                state = .connecting(request == .undeliverable ? .open : request)
                return List(.closeUpstream, .connect)
            }
            state = .finished
            return List(.closeUpstream, .answer, .finish)
        case .failed, .responseBroken:
            state = .finished
            return List(.closeUpstream, .answer, .finish)
        case .downstreamBroken:
            state = .finished
            return List(.closeUpstream, .finish)
        case .downstreamEnded:
            return List()
        case .headReceived, .tunnelAsked, .forwardDecided, .answerDecided, .connected, .responseEnded, .upstreamEnded:
            return surprised()
        }
    }

    private mutating func streaming(_ event: Event, _ request: Request) -> List {
        switch event {
        case .requestEnded:
            if request == .open { state = .streaming(.ended) }
            return List()
        case .requestUndeliverable:
            if request == .open { state = .streaming(.undeliverable) }
            return List()
        case .responseEnded(let reusable):
            state = .finished
            // An upstream that has not had the whole request would take the next one for the rest of this one.
            return reusable && request == .ended
                ? List(.endResponse, .releaseUpstream, .finish) : List(.endResponse, .closeUpstream, .finish)
        case .answerDecided:
            // The response phases replaced the upstream's response before its head went out.
            state = .finished
            return List(.closeUpstream, .answer, .finish)
        case .failed, .responseBroken:
            state = .finished
            return List(.closeUpstream, .breakResponse, .finish)
        case .downstreamBroken:
            state = .finished
            return List(.closeUpstream, .finish)
        case .downstreamEnded:
            return List()
        case .headReceived, .tunnelAsked, .forwardDecided, .connected, .attemptFailed, .informationalReceived,
            .switched,
            .responseHeadReceived, .upstreamEnded:
            return surprised()
        }
    }

    private mutating func tunnelling(_ event: Event, _ downstreamEnded: Bool, _ upstreamEnded: Bool) -> List {
        switch event {
        case .downstreamEnded:
            if downstreamEnded { return List() }
            if upstreamEnded {
                state = .finished
                return List(.closeUpstream, .breakResponse, .finish)
            }
            state = .tunnelling(downstreamEnded: true, upstreamEnded: false)
            return List(.endUpstreamWrites)
        case .upstreamEnded:
            if upstreamEnded { return List() }
            if downstreamEnded {
                state = .finished
                return List(.closeUpstream, .breakResponse, .finish)
            }
            state = .tunnelling(downstreamEnded: false, upstreamEnded: true)
            return List(.endDownstreamWrites)
        case .failed, .responseBroken, .downstreamBroken, .requestUndeliverable:
            state = .finished
            return List(.closeUpstream, .breakResponse, .finish)
        case .headReceived, .tunnelAsked, .forwardDecided, .answerDecided, .connected, .attemptFailed, .requestEnded,
            .informationalReceived, .switched, .responseHeadReceived, .responseEnded:
            return surprised()
        }
    }

    private mutating func surprised() -> List {
        unexpected += 1
        return List()
    }
}
