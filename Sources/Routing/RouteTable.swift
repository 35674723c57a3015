// Step 3 of the walk of a request: the host and the canonical path choose a route, or it is said why none was chosen.
//
// The table is compiled from a snapshot once, off the loops, and never changes. Two flat tables with open addressing:
// host patterns, and (host, path prefix) pairs. A match hashes the host, then walks the path once; at each element
// boundary at which this host has a prefix at all, it looks the prefix up. The time depends on the length of the host
// and on the depth of this host's deepest path, not on how many hosts and rules there are.
//
// Which rule wins (Kubernetes API, Ingress; where it leaves a choice, as ingress-nginx does):
//
// - The host pattern is chosen first and alone: the exact host, else the wildcard whose star stands for the host's
//   first label (letters, digits, `-` and `_`), else the rules without a host.
// - Within that pattern: an Exact path, else the longest Prefix by elements. A Prefix `/a/` also answers `/a`, unless
//   the same host has `/a` too, which then answers exactly that and leaves `/a/…` to the longer spelling.
// - If that pattern has no path for the request, the request goes to the default route. Rules of a wildcard or rules
//   without a host do not stand in for a host that is known: what the owner of a host did not publish stays
//   unpublished, and no other tenant can take it over.
// - Of two rules with the same host, path and type, the first in `VirtualHost.routes` wins.
package import Model

/// What a request matched.
package struct RouteMatch: Sendable, Hashable {
    package enum Kind: UInt8, Sendable, Hashable {
        /// A rule of an Ingress.
        case rule
        /// `Snapshot.defaultRoute`.
        case defaultRoute
        /// Nothing: answered 404.
        case none
    }

    /// Index into `Snapshot.routes`; -1 for `.none`, as in `Exchange.route`.
    package var route: Int32
    package var kind: Kind

    package init(route: Int32, kind: Kind) {
        self.route = route
        self.kind = kind
    }
}

/// The compiled routes of one snapshot; immutable, shared by all loops.
package final class RouteTable: Sendable {
    package let snapshot: Snapshot
    /// The number under which the snapshot was published.
    package let generation: UInt64

    /// Rules that can never be chosen because an earlier one says the same: loser → winner.
    let shadowed: [Int32: Int32]

    private let hash: ByteHash
    private let hosts: [HostSlot]
    private let paths: [PathSlot]
    /// The bytes of all keys.
    private let keys: [UInt8]
    private let anyHost: HostSlot
    private let hasWildcards: Bool
    private let defaultRoute: Int32

    /// A host pattern with what the walk over the path needs to know of its paths.
    struct HostSlot: Sendable {
        var hash: UInt64 = 0
        var keyOffset: UInt32 = 0
        /// The high bit tells a wildcard's parent from an exact host of the same name.
        var keyCount: UInt32 = 0
        /// Index into `Snapshot.hosts`; -1 marks a free slot.
        var host: Int32 = -1
        /// The most slashes in any of its keys; -1 without paths.
        var deepest: Int32 = -1
        /// Bit n: there is a key with n slashes; bit 63 stands for 63 and more.
        var depths: UInt64 = 0

        @inline(__always)
        func hasKey(atDepth depth: Int32) -> Bool {
            depths & (1 << UInt64(truncatingIfNeeded: min(depth, 63))) != 0
        }
    }

    /// A prefix of one host, without a slash at its end, and who answers by what follows it in the request path.
    struct PathSlot: Sendable {
        var hash: UInt64 = 0
        var keyOffset: UInt32 = 0
        var keyCount: UInt32 = 0
        /// -1 marks a free slot.
        var host: Int32 = -1
        /// Nothing follows; one slash; a slash and more. Indices into `Snapshot.routes`, -1 nobody.
        var atEnd: Int32 = -1
        var atSlash: Int32 = -1
        var below: Int32 = -1
    }

    /// Drawn once per process: see `ByteHash`.
    private static let processHash: ByteHash = {
        var generator = SystemRandomNumberGenerator()
        return ByteHash(using: &generator)
    }()

    private static let wildcard: UInt32 = 1 << 31

    /// Compiles a snapshot. Indices that point nowhere are left out, never trusted.
    package convenience init(_ snapshot: Snapshot, generation: UInt64 = 0) {
        self.init(snapshot, generation: generation, hash: Self.processHash)
    }

    init(_ snapshot: Snapshot, generation: UInt64, hash: ByteHash) {
        self.snapshot = snapshot
        self.generation = generation
        self.hash = hash
        var builder = Builder(hash: hash, snapshot: snapshot)
        var any = HostSlot()
        var wildcards = false
        for (index, host) in snapshot.hosts.enumerated() {
            let shape = builder.addPaths(of: host, index: Int32(truncatingIfNeeded: index))
            switch host.pattern {
            case .any:
                if any.host < 0 { any = shape }
            case .exact(let name):
                builder.addHost(name, kind: 0, shape)
            case .wildcard(let parent):
                builder.addHost(parent, kind: Self.wildcard, shape)
                wildcards = true
            }
        }
        anyHost = any
        hasWildcards = wildcards
        hosts = builder.hostTable()
        paths = builder.pathTable()
        keys = builder.keys
        shadowed = builder.shadowed
        defaultRoute = snapshot.defaultRoute.flatMap { snapshot.routes.indices.contains($0) ? Int32($0) : nil } ?? -1
    }

    // MARK: Match

    /// The route of a request. `host` as in `MessageHead.hostRange` (lower case, no port, no trailing dot; empty when
    /// the request has none), `path` as in `MessageHead.pathRange` (canonical). A path that does not begin with a
    /// slash (`*`) matches no rule.
    package func match(host: Span<UInt8>, path: Span<UInt8>) -> RouteMatch {
        var recorder = NoRecorder()
        return match(host: host, path: path, recorder: &recorder)
    }

    /// The one matcher: `explain` passes a recorder that keeps what it hears, traffic one that compiles to nothing.
    @inline(__always)
    func match(host: Span<UInt8>, path: Span<UInt8>, recorder: inout some MatchRecorder) -> RouteMatch {
        let slot = chooseHost(host, recorder: &recorder)
        if slot.deepest >= 0 {
            let route = walk(path, of: slot, recorder: &recorder)
            if route >= 0 { return RouteMatch(route: route, kind: .rule) }
        }
        return defaultRoute >= 0
            ? RouteMatch(route: defaultRoute, kind: .defaultRoute) : RouteMatch(route: -1, kind: .none)
    }

    @inline(__always)
    private func chooseHost(_ host: Span<UInt8>, recorder: inout some MatchRecorder) -> HostSlot {
        if !host.isEmpty {
            if let slot = find(host, kind: 0) {
                recorder.tried(.exact, found: slot.host)
                return slot
            }
            recorder.tried(.exact, found: -1)
            if hasWildcards {
                let label = Self.labelCount(host)
                if label > 0, label < host.count,
                    let slot = find(host.extracting((label + 1)..<host.count), kind: Self.wildcard)
                {
                    recorder.tried(.wildcard, found: slot.host)
                    return slot
                }
            }
        }
        recorder.tried(.wildcard, found: -1)
        recorder.tried(.any, found: anyHost.host)
        return anyHost
    }

    /// How many bytes the first label of a host has, if a star may stand for it and a dot follows; else 0.
    @inline(__always)
    private static func labelCount(_ host: Span<UInt8>) -> Int {
        var i = 0
        while i < host.count {
            let byte = host[i]
            if byte == UInt8(ascii: ".") { return i }
            let isLetter = (byte | 0x20) &- 97 < 26
            let isDigit = byte &- 48 < 10
            if !isLetter, !isDigit, byte != UInt8(ascii: "-"), byte != UInt8(ascii: "_") { return 0 }
            i &+= 1
        }
        return 0
    }

    @inline(__always)
    private func find(_ name: Span<UInt8>, kind: UInt32) -> HostSlot? {
        let wanted = hash.hash(name, salt: UInt64(kind))
        let keyCount = UInt32(truncatingIfNeeded: name.count) | kind
        let mask = hosts.count &- 1
        var i = Int(truncatingIfNeeded: wanted) & mask
        while true {
            let slot = hosts[i]
            if slot.host < 0 { return nil }
            if slot.hash == wanted, slot.keyCount == keyCount,
                name.starts(with: keys, from: Int(slot.keyOffset), length: name.count)
            {
                return slot
            }
            i = (i &+ 1) & mask
        }
    }

    /// Walks the path once. Each slash, and the end, closes a prefix; the last prefix that somebody answers wins,
    /// because prefixes come in the order of their length.
    @inline(__always)
    private func walk(_ path: Span<UInt8>, of host: HostSlot, recorder: inout some MatchRecorder) -> Int32 {
        let count = path.count
        if count == 0 || path[0] != UInt8(ascii: "/") { return -1 }
        var state = hash.begin(salt: UInt64(truncatingIfNeeded: host.host))
        var depth: Int32 = 0
        var best: Int32 = -1
        var i = 0
        while true {
            let isWhole = count &- i >= 8
            let word = isWhole ? path.word(at: i) : path.tail(at: i)
            var slashes = Self.slashes(word)
            while slashes != 0 {
                let bits = UInt64(truncatingIfNeeded: slashes.trailingZeroBitCount & 0x38)
                if host.hasKey(atDepth: depth) {
                    let length = i &+ Int(bits >> 3)
                    let tail = word & ((1 << bits) &- 1)
                    let wanted = hash.finish(state, tail: tail, count: length)
                    if let slot = find(wanted, path, length: length, host: host.host) {
                        let route = length &+ 1 == count ? slot.atSlash : slot.below
                        if route >= 0 { best = route }
                        recorder.visited(slot, answering: route)
                    }
                }
                depth &+= 1
                if depth > host.deepest { return best }
                slashes &= slashes &- 1
            }
            if !isWhole {
                if host.hasKey(atDepth: depth) {
                    let wanted = hash.finish(state, tail: word, count: count)
                    if let slot = find(wanted, path, length: count, host: host.host) {
                        if slot.atEnd >= 0 { best = slot.atEnd }
                        recorder.visited(slot, answering: slot.atEnd)
                    }
                }
                return best
            }
            state = hash.absorb(state, word)
            i &+= 8
        }
    }

    /// The high bit of each byte of `word` that is a slash; exact, also beside bytes that are nearly one.
    @inline(__always)
    private static func slashes(_ word: UInt64) -> UInt64 {
        let low: UInt64 = 0x7f7f_7f7f_7f7f_7f7f
        let zeros = word ^ 0x2f2f_2f2f_2f2f_2f2f
        return ~(((zeros & low) &+ low) | zeros | low)
    }

    @inline(__always)
    private func find(_ wanted: UInt64, _ path: Span<UInt8>, length: Int, host: Int32) -> PathSlot? {
        let mask = paths.count &- 1
        var i = Int(truncatingIfNeeded: wanted) & mask
        while true {
            let slot = paths[i]
            if slot.host < 0 { return nil }
            if slot.hash == wanted, slot.host == host, Int(slot.keyCount) == length,
                path.starts(with: keys, from: Int(slot.keyOffset), length: length)
            {
                return slot
            }
            i = (i &+ 1) & mask
        }
    }
}

// MARK: - Compiling

extension RouteTable {
    /// Collects hosts and prefixes, then lays them out.
    private struct Builder {
        let hash: ByteHash
        let snapshot: Snapshot
        var keys: [UInt8] = []
        var shadowed: [Int32: Int32] = [:]
        private var hosts: [HostSlot] = []
        private var paths: [PathSlot] = []
        /// Which patterns of a prefix hold a place by which right; only while one host is compiled.
        private var seen: [ArraySlice<UInt8>: Claim] = [:]

        private struct Claim {
            var slot: Int
            var exactAtEnd: Int32 = -1
            var exactAtSlash: Int32 = -1
            var bare: Int32 = -1
            var slashed: Int32 = -1
        }

        init(hash: ByteHash, snapshot: Snapshot) {
            self.hash = hash
            self.snapshot = snapshot
        }

        /// Adds the paths of one host pattern; answers with a slot that still lacks its key.
        mutating func addPaths(of host: VirtualHost, index: Int32) -> HostSlot {
            var shape = HostSlot(host: index)
            seen.removeAll(keepingCapacity: true)
            for route in host.routes where snapshot.routes.indices.contains(route) {
                claim(snapshot.routes[route].path, for: Int32(truncatingIfNeeded: route), host: index)
            }
            for (key, claim) in seen {
                let depth = key.reduce(0) { $1 == UInt8(ascii: "/") ? $0 + 1 : $0 }
                shape.deepest = max(shape.deepest, Int32(truncatingIfNeeded: depth))
                shape.depths |= 1 << UInt64(min(depth, 63))
                // The request path `/a/` ends the key `/a/` (of a Prefix `/a//`) and is the slash after the key `/a`:
                // an Exact rule for it wins at either place.
                let exact = key.last == UInt8(ascii: "/") ? seen[key.dropLast()]?.exactAtSlash ?? -1 : claim.exactAtEnd
                paths[claim.slot].atEnd = [exact, claim.bare, claim.slashed].first { $0 >= 0 } ?? -1
                paths[claim.slot].atSlash = [claim.exactAtSlash, claim.slashed, claim.bare].first { $0 >= 0 } ?? -1
                paths[claim.slot].below = claim.slashed >= 0 ? claim.slashed : claim.bare
            }
            return shape
        }

        private mutating func claim(_ pattern: PathPattern, for route: Int32, host: Int32) {
            let bytes = Array(pattern.path.utf8)
            let isSlashed = bytes.last == UInt8(ascii: "/")
            let key = isSlashed ? bytes.dropLast() : bytes[...]
            // A pattern without a slash at its front (only the empty one is sensible) stands for the root.
            var claim = seen[key] ?? Claim(slot: addKey(key, host: host))
            let taken: Int32
            switch (pattern, isSlashed) {
            case (.exact, false): taken = Self.take(&claim.exactAtEnd, for: route)
            case (.exact, true): taken = Self.take(&claim.exactAtSlash, for: route)
            // `/` is the root in its only spelling.
            case (.prefix, false): taken = Self.take(&claim.bare, for: route)
            case (.prefix, true): taken = Self.take(&claim.slashed, for: route)
            }
            if taken >= 0 { shadowed[route] = taken }
            seen[key] = claim
        }

        /// Who holds the place already; -1 when the route could take it.
        private static func take(_ place: inout Int32, for route: Int32) -> Int32 {
            if place >= 0 { return place }
            place = route
            return -1
        }

        private mutating func addKey(_ key: ArraySlice<UInt8>, host: Int32) -> Int {
            let bytes = Array(key)
            paths.append(
                PathSlot(
                    hash: hash.hash(bytes.span, salt: UInt64(truncatingIfNeeded: host)),
                    keyOffset: UInt32(truncatingIfNeeded: keys.count), keyCount: UInt32(truncatingIfNeeded: key.count),
                    host: host))
            keys.append(contentsOf: key)
            return paths.count - 1
        }

        mutating func addHost(_ name: String, kind: UInt32, _ shape: HostSlot) {
            let bytes = Array(name.utf8)
            var slot = shape
            slot.hash = hash.hash(bytes.span, salt: UInt64(kind))
            slot.keyOffset = UInt32(truncatingIfNeeded: keys.count)
            slot.keyCount = UInt32(truncatingIfNeeded: bytes.count) | kind
            keys.append(contentsOf: bytes)
            hosts.append(slot)
        }

        /// At most half full, so that a miss ends soon; never empty, so that there is a slot to look at.
        private static func capacity(for count: Int) -> Int {
            var capacity = 2
            while capacity < count * 2 { capacity *= 2 }
            return capacity
        }

        func hostTable() -> [HostSlot] {
            var table = [HostSlot](repeating: HostSlot(), count: Self.capacity(for: hosts.count))
            for slot in hosts {
                var i = Int(truncatingIfNeeded: slot.hash) & (table.count - 1)
                while table[i].host >= 0 { i = (i + 1) & (table.count - 1) }
                table[i] = slot
            }
            return table
        }

        func pathTable() -> [PathSlot] {
            var table = [PathSlot](repeating: PathSlot(), count: Self.capacity(for: paths.count))
            for slot in paths {
                var i = Int(truncatingIfNeeded: slot.hash) & (table.count - 1)
                while table[i].host >= 0 { i = (i + 1) & (table.count - 1) }
                table[i] = slot
            }
            return table
        }
    }
}
