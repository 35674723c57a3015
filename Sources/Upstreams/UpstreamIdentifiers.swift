// What the proxy holds in place of references: indices into one loop's tables.

/// An upstream in one loop's `UpstreamTable`.
package struct UpstreamID: Sendable, Hashable {
    @usableFromInline let slot: UInt32

    init(slot: UInt32) { self.slot = slot }

    /// No upstream: has no endpoint.
    package static var none: UpstreamID { UpstreamID(slot: .max) }
}

/// An endpoint in one loop's `UpstreamTable`. Stays valid while a request or a connection of it is counted; a stale one
/// is recognised by its generation and ignored.
package struct EndpointID: Sendable, Hashable {
    let slot: UInt32
    let generation: UInt32
}

/// From the indices of one snapshot (`Snapshot.upstreams`) to this loop's upstreams. A request keeps the one of the
/// snapshot that it is pinned to.
package struct UpstreamMap: Sendable {
    package let generation: UInt64
    let slots: [UInt32]

    /// An empty map: no upstream of any snapshot.
    package init() {
        generation = 0
        slots = []
    }

    init(generation: UInt64, slots: [UInt32]) {
        self.generation = generation
        self.slots = slots
    }

    /// The upstream at an index of that snapshot; `.none` for one that points nowhere (-1 too).
    package subscript(index: Int) -> UpstreamID {
        slots.indices.contains(index) ? UpstreamID(slot: slots[index]) : .none
    }
}

/// The endpoints that one request has failed on. Holds eight; more tries than that make it forget the first.
package struct TriedEndpoints: Sendable {
    private var slots = InlineArray<8, UInt32>(repeating: .max)
    package private(set) var count = 0

    package init() {}

    package mutating func insert(_ endpoint: EndpointID) {
        slots[count & 7] = endpoint.slot
        count += 1
    }

    package mutating func removeAll() {
        count = 0
    }

    @inline(__always)
    func contains(_ slot: UInt32) -> Bool {
        var i = 0
        let most = min(count, 8)
        while i < most {
            if slots[i] == slot { return true }
            i += 1
        }
        return false
    }
}

/// What is to be done for a request.
package enum UpstreamAction: Sendable, Hashable {
    /// Use this idle connection: the handle under which it was parked.
    case lease(EndpointID, connection: UInt64)
    /// Open a new connection.
    case connect(EndpointID)
    /// Use this connection beside those that are on it already: the handle under which it was opened.
    case join(EndpointID, connection: UInt64)
    case shed(Shed)

    package enum Shed: UInt8, Sendable, Hashable {
        /// The upstream has no endpoint at all: 503.
        case noEndpoint
        /// This request has tried them all: the failure that it met stands.
        case allTried
        /// Every connection that may be shared is full, and there may be no more of them: 503.
        case full
    }
}

/// The bounds of one loop's view of the upstreams. Times in nanoseconds.
package struct UpstreamSettings: Sendable {
    /// Idle connections kept to one endpoint.
    package var mostIdle = 256
    package var idleTimeout: UInt64 = 60_000_000_000
    /// Requests that one connection may carry; 0 has no bound.
    package var mostRequestsPerConnection = 0

    /// Connections of HTTP/2 to one endpoint, and requests on one of them at a time, should the endpoint allow more.
    package var mostShared = 64
    package var mostStreams = 128

    /// Connect failures in a row that eject an endpoint.
    package var failuresToEject = 2
    /// The first ejection lasts about this long, each further one twice as long, up to `longestEjection`.
    package var firstEjection: UInt64 = 1_000_000_000
    package var longestEjection: UInt64 = 60_000_000_000
    /// Share of an upstream's endpoints that may be ejected at one time.
    package var mostEjectedPercent = 80
    /// A probe without a verdict after this time makes room for another.
    package var probeTimeout: UInt64 = 30_000_000_000

    /// Retries that a hundred requests earn, how many may be saved up, and how many are free each second.
    package var retryPercent = 20
    package var mostSavedRetries = 100
    package var freeRetriesPerSecond = 3

    package init() {}
}
