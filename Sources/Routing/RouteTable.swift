// Step 3 of the walk of a request: the host and the canonical path choose a route, or it is said why none was chosen.
//
// The table is compiled from a snapshot once, off the loops, and never changes. A hash table with open addressing finds
// the host pattern; each pattern has a small table of its own for its paths. A match hashes the host, then walks the path
// once; at each element boundary at which this host has a prefix at all, it looks the prefix up. The time depends on the
// length of the host and on the depth of this host's deepest path, not on how many hosts and rules there are.
//
// All of it lies in one array of words, what belongs to a host side by side: with many hosts a match is a handful of
// cache misses and little else, and it is these that the layout saves.
//
//     host       key count and kind | host     depths       deepest | index mask     key …
//     index      fingerprint | record, 0 free  …
//     path       key count | below             at end | at slash                     key …
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
    /// Hosts: fingerprint in the high half, place of the record in `words` in the low one; 0 is free.
    let hosts: [UInt64]
    let words: [UInt64]
    /// Where in `words` each host's own begin, by its number; they end where the next one's begin.
    private let starts: [Int]
    private let anyHost: HostSlot
    private let hasWildcards: Bool
    private let defaultRoute: Int32

    /// A host pattern with what the walk over the path needs to know of its paths.
    struct HostSlot: Sendable {
        /// Index into `Snapshot.hosts`; -1 is none.
        var host: Int32 = -1
        /// The most slashes in any of its keys; -1 without paths.
        var deepest: Int32 = -1
        /// Bit n: there is a key with n slashes; bit 63 stands for 63 and more.
        var depths: UInt64 = 0
        /// Where its index of paths begins in `words`, and its size less one.
        var index = 0
        var mask = 0

        @inline(__always)
        func hasKey(atDepth depth: Int32) -> Bool {
            depths & (1 << UInt64(truncatingIfNeeded: min(depth, 63))) != 0
        }
    }

    /// A prefix of one host, without a slash at its end, and who answers by what follows it in the request path.
    struct PathSlot: Sendable {
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
    private static let pathSalt: UInt64 = 1

    /// Compiles a snapshot. Indices that point nowhere are left out, never trusted. With the table before as `previous`,
    /// hosts whose paths did not change are not compiled anew; the table is the same as without.
    package convenience init(_ snapshot: Snapshot, generation: UInt64 = 0, previous: RouteTable? = nil) {
        if let previous, previous.hasSameRules(as: snapshot) {
            self.init(snapshot, generation: generation, rules: previous)
        } else {
            self.init(snapshot, generation: generation, hash: Self.processHash, previous: previous)
        }
    }

    private init(_ snapshot: Snapshot, generation: UInt64, rules: RouteTable) {
        self.snapshot = snapshot
        self.generation = generation
        hash = rules.hash
        hosts = rules.hosts
        words = rules.words
        starts = rules.starts
        anyHost = rules.anyHost
        hasWildcards = rules.hasWildcards
        defaultRoute = rules.defaultRoute
        shadowed = rules.shadowed
    }

    /// Whether a snapshot would compile to the same: the same hosts with the same paths at the same indices.
    private func hasSameRules(as other: Snapshot) -> Bool {
        let (routes, others) = (snapshot.routes, other.routes)
        guard other.defaultRoute == snapshot.defaultRoute, others.count == routes.count, other.hosts == snapshot.hosts
        else { return false }
        for i in routes.indices where others[i].path != routes[i].path { return false }
        return true
    }

    init(_ snapshot: Snapshot, generation: UInt64, hash: ByteHash, previous: RouteTable? = nil) {
        self.snapshot = snapshot
        self.generation = generation
        self.hash = hash
        var builder = Builder(hash: hash, snapshot: snapshot, previous: previous)
        var any = HostSlot()
        var wildcards = false
        for (index, host) in snapshot.hosts.enumerated() {
            let number = Int32(truncatingIfNeeded: index)
            switch host.pattern {
            case .any:
                let slot = builder.add("", kind: 0, host, number: number)
                if any.host < 0 { any = slot }
            case .exact(let name):
                _ = builder.add(name, kind: 0, host, number: number)
            case .wildcard(let parent):
                _ = builder.add(parent, kind: Self.wildcard, host, number: number)
                wildcards = true
            }
        }
        anyHost = any
        hasWildcards = wildcards
        hosts = builder.hostTable()
        words = builder.words
        starts = builder.starts
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
        let keyCount = UInt64(UInt32(truncatingIfNeeded: name.count) | kind)
        let mask = hosts.count &- 1
        var i = Int(truncatingIfNeeded: wanted) & mask
        while true {
            let entry = hosts[i]
            if entry == 0 { return nil }
            if entry >> 32 == wanted >> 32 {
                let record = Int(truncatingIfNeeded: entry & 0xffff_ffff)
                if words[record] >> 32 == keyCount, name.equals(words, from: record &+ 3, count: name.count) {
                    return Self.hostSlot(words, at: record)
                }
            }
            i = (i &+ 1) & mask
        }
    }

    @inline(__always)
    private static func hostSlot(_ words: [UInt64], at record: Int) -> HostSlot {
        let first = words[record]
        let third = words[record &+ 2]
        let keyCount = Int(truncatingIfNeeded: first >> 32 & 0x7fff_ffff)
        return HostSlot(
            host: Int32(truncatingIfNeeded: first), deepest: Int32(truncatingIfNeeded: third >> 32),
            depths: words[record &+ 1], index: record &+ 3 &+ (keyCount &+ 7) >> 3,
            mask: Int(truncatingIfNeeded: third & 0xffff_ffff))
    }

    /// Walks the path once. Each slash, and the end, closes a prefix; the last prefix that somebody answers wins,
    /// because prefixes come in the order of their length.
    @inline(__always)
    private func walk(_ path: Span<UInt8>, of host: HostSlot, recorder: inout some MatchRecorder) -> Int32 {
        let count = path.count
        if count == 0 || path[0] != UInt8(ascii: "/") { return -1 }
        var state = hash.begin(salt: Self.pathSalt)
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
                    if let slot = find(wanted, path, length: length, of: host) {
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
                    if let slot = find(wanted, path, length: count, of: host) {
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
    private func find(_ wanted: UInt64, _ path: Span<UInt8>, length: Int, of host: HostSlot) -> PathSlot? {
        var i = Int(truncatingIfNeeded: wanted) & host.mask
        while true {
            let entry = words[host.index &+ i]
            if entry == 0 { return nil }
            if entry >> 32 == wanted >> 32 {
                let record = Int(truncatingIfNeeded: entry & 0xffff_ffff)
                let first = words[record]
                if Int(truncatingIfNeeded: first >> 32) == length, path.equals(words, from: record &+ 2, count: length)
                {
                    let second = words[record &+ 1]
                    return PathSlot(
                        atEnd: Int32(truncatingIfNeeded: second >> 32), atSlash: Int32(truncatingIfNeeded: second),
                        below: Int32(truncatingIfNeeded: first))
                }
            }
            i = (i &+ 1) & host.mask
        }
    }
}

// MARK: - Compiling

extension RouteTable {
    /// Lays out one host pattern after the other.
    private struct Builder {
        let hash: ByteHash
        let snapshot: Snapshot
        /// The first word is not used: place 0 marks a free entry.
        var words: [UInt64] = [0]
        var shadowed: [Int32: Int32] = [:]
        private(set) var starts: [Int] = []
        private var hosts: [(hash: UInt64, record: Int)] = []
        private let previous: RouteTable?
        /// The next host of the table before that has not been passed: both are in order.
        private var nextPrevious = 0
        /// Which patterns of a prefix hold a place by which right; only while one host is compiled.
        private var claims: [Claim] = []
        /// Where a key's claim stands, by the key's hash; of two keys with one hash the later goes under the next number.
        private var claimOfHash: [UInt64: Int] = [:]

        private struct Claim {
            var key: ArraySlice<UInt8>
            var hash: UInt64
            var exactAtEnd: Int32 = -1
            var exactAtSlash: Int32 = -1
            var bare: Int32 = -1
            var slashed: Int32 = -1
        }

        init(hash: ByteHash, snapshot: Snapshot, previous: RouteTable?) {
            self.hash = hash
            self.snapshot = snapshot
            // Places are of the same kind only under the same secret.
            self.previous = previous.flatMap { $0.hash == hash ? $0 : nil }
            words.reserveCapacity(previous.map { $0.words.count + 256 } ?? snapshot.routes.count * 10)
        }

        /// Adds a host pattern with its paths. The nameless one is not entered into the table of hosts.
        mutating func add(_ name: String, kind: UInt32, _ host: VirtualHost, number: Int32) -> HostSlot {
            let bytes = Array(name.utf8)
            let record = words.count
            let slot = copy(host, number: number) ?? compile(bytes, kind: kind, host, number: number)
            starts.append(record)
            if kind != 0 || !bytes.isEmpty { hosts.append((hash.hash(bytes.span, salt: UInt64(kind)), record)) }
            return slot
        }

        /// Takes what the table before has of the host, if its paths are the same: only where it lies, and the numbers of
        /// host and routes, can be others.
        private mutating func copy(_ host: VirtualHost, number: Int32) -> HostSlot? {
            guard let previous else { return nil }
            let before = previous.snapshot
            while nextPrevious < before.hosts.count, before.hosts[nextPrevious].pattern < host.pattern {
                nextPrevious += 1
            }
            guard nextPrevious < before.hosts.count, before.hosts[nextPrevious].pattern == host.pattern else {
                return nil
            }
            let old = nextPrevious
            let routes = before.hosts[old].routes
            let shift = (host.routes.first ?? 0) - (routes.first ?? 0)
            guard routes.count == host.routes.count,
                zip(host.routes, routes).allSatisfy({ new, old in
                    new - old == shift && snapshot.routes.indices.contains(new) && before.routes.indices.contains(old)
                        && snapshot.routes[new].path == before.routes[old].path
                })
            else { return nil }
            let start = previous.starts[old]
            let end = old + 1 < previous.starts.count ? previous.starts[old + 1] : previous.words.count
            let record = words.count
            words.append(contentsOf: previous.words[start..<end])
            words[record] = words[record] & ~0xffff_ffff | UInt64(UInt32(bitPattern: number))
            let slot = RouteTable.hostSlot(words, at: record)
            if record != start || shift != 0 { move(slot, by: record - start, shift) }
            if !previous.shadowed.isEmpty {
                for (new, old) in zip(host.routes, routes) {
                    guard let winner = previous.shadowed[Int32(truncatingIfNeeded: old)] else { continue }
                    shadowed[Int32(truncatingIfNeeded: new)] = winner + Int32(truncatingIfNeeded: shift)
                }
            }
            return slot
        }

        /// Puts right what was copied from elsewhere.
        private mutating func move(_ slot: HostSlot, by distance: Int, _ shift: Int) {
            func shifted(_ route: UInt64) -> UInt64 {
                let number = Int32(truncatingIfNeeded: route)
                return UInt64(UInt32(bitPattern: number < 0 ? number : number &+ Int32(truncatingIfNeeded: shift)))
            }
            for place in slot.index...(slot.index + slot.mask) where words[place] != 0 {
                words[place] &+= UInt64(bitPattern: Int64(distance))
                guard shift != 0 else { continue }
                let record = Int(truncatingIfNeeded: words[place] & 0xffff_ffff)
                words[record] = words[record] & ~0xffff_ffff | shifted(words[record])
                words[record + 1] = shifted(words[record + 1] >> 32) << 32 | shifted(words[record + 1])
            }
        }

        private mutating func compile(_ bytes: [UInt8], kind: UInt32, _ host: VirtualHost, number: Int32) -> HostSlot {
            claims.removeAll(keepingCapacity: true)
            claimOfHash.removeAll(keepingCapacity: true)
            for route in host.routes where snapshot.routes.indices.contains(route) {
                claim(snapshot.routes[route].path, for: Int32(truncatingIfNeeded: route))
            }
            var slot = HostSlot(host: number)
            slot.mask = Self.capacity(for: claims.count) - 1
            for claim in claims {
                let depth = claim.key.reduce(0) { $1 == UInt8(ascii: "/") ? $0 + 1 : $0 }
                slot.deepest = max(slot.deepest, Int32(truncatingIfNeeded: depth))
                slot.depths |= 1 << UInt64(min(depth, 63))
            }
            words.append(Self.pair(UInt32(truncatingIfNeeded: bytes.count) | kind, UInt32(bitPattern: number)))
            words.append(slot.depths)
            words.append(Self.pair(UInt32(bitPattern: slot.deepest), UInt32(truncatingIfNeeded: slot.mask)))
            append(bytes[...])
            slot.index = words.count
            words.append(contentsOf: repeatElement(0, count: slot.mask + 1))
            for claim in claims { add(claim, to: slot) }
            return slot
        }

        private mutating func add(_ claim: Claim, to slot: HostSlot) {
            // The request path `/a/` ends the key `/a/` (of a Prefix `/a//`) and is the slash after the key `/a`: an
            // Exact rule for it wins at either place.
            let exact: Int32 =
                claim.key.last == UInt8(ascii: "/")
                ? known(claim.key.dropLast()).found.map { claims[$0].exactAtSlash } ?? -1 : claim.exactAtEnd
            let atEnd: Int32 = [exact, claim.bare, claim.slashed].first { $0 >= 0 } ?? -1
            let atSlash: Int32 = [claim.exactAtSlash, claim.slashed, claim.bare].first { $0 >= 0 } ?? -1
            let below = claim.slashed >= 0 ? claim.slashed : claim.bare
            let wanted = claim.hash
            var i = Int(truncatingIfNeeded: wanted) & slot.mask
            while words[slot.index + i] != 0 { i = (i + 1) & slot.mask }
            words[slot.index + i] = Self.pair(
                UInt32(truncatingIfNeeded: wanted >> 32), UInt32(truncatingIfNeeded: words.count))
            words.append(Self.pair(UInt32(truncatingIfNeeded: claim.key.count), UInt32(bitPattern: below)))
            words.append(Self.pair(UInt32(bitPattern: atEnd), UInt32(bitPattern: atSlash)))
            append(claim.key)
        }

        /// The claim of a key, or under which number to enter it; and the key's hash.
        private func known(_ key: ArraySlice<UInt8>) -> (found: Int?, number: UInt64, hash: UInt64) {
            let wanted = hash.hash(key.span, salt: RouteTable.pathSalt)
            var number = wanted
            while let position = claimOfHash[number] {
                if claims[position].key == key { return (position, number, wanted) }
                number &+= 1
            }
            return (nil, number, wanted)
        }

        private mutating func claim(_ pattern: PathPattern, for route: Int32) {
            let bytes = Array(pattern.path.utf8)
            let isSlashed = bytes.last == UInt8(ascii: "/")
            let key = isSlashed ? bytes.dropLast() : bytes[...]
            let position: Int
            let (found, number, hash) = known(key)
            if let found {
                position = found
            } else {
                position = claims.count
                claims.append(Claim(key: key, hash: hash))
                claimOfHash[number] = position
            }
            let taken: Int32
            switch (pattern, isSlashed) {
            case (.exact, false): taken = Self.take(&claims[position].exactAtEnd, for: route)
            case (.exact, true): taken = Self.take(&claims[position].exactAtSlash, for: route)
            case (.prefix, false): taken = Self.take(&claims[position].bare, for: route)
            case (.prefix, true): taken = Self.take(&claims[position].slashed, for: route)
            }
            if taken >= 0 { shadowed[route] = taken }
        }

        /// Who holds the place already; -1 when the route could take it.
        private static func take(_ place: inout Int32, for route: Int32) -> Int32 {
            if place >= 0 { return place }
            place = route
            return -1
        }

        /// Bytes as words, the first in the lowest place, filled up with zeros.
        private mutating func append(_ bytes: ArraySlice<UInt8>) {
            var word: UInt64 = 0
            var shift: UInt64 = 0
            for byte in bytes {
                word |= UInt64(byte) << shift
                shift += 8
                if shift == 64 {
                    words.append(word)
                    word = 0
                    shift = 0
                }
            }
            if shift > 0 { words.append(word) }
        }

        private static func pair(_ high: UInt32, _ low: UInt32) -> UInt64 { UInt64(high) << 32 | UInt64(low) }

        /// At most half full, so that a miss ends soon; never empty, so that there is an entry to look at.
        private static func capacity(for count: Int) -> Int {
            var capacity = 2
            while capacity < count * 2 { capacity *= 2 }
            return capacity
        }

        func hostTable() -> [UInt64] {
            var table = [UInt64](repeating: 0, count: Self.capacity(for: hosts.count))
            for host in hosts {
                var i = Int(truncatingIfNeeded: host.hash) & (table.count - 1)
                while table[i] != 0 { i = (i + 1) & (table.count - 1) }
                table[i] = Self.pair(
                    UInt32(truncatingIfNeeded: host.hash >> 32), UInt32(truncatingIfNeeded: host.record))
            }
            return table
        }
    }
}
