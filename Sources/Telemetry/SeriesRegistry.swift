// Which routes, upstreams and scripts are counted apart. Names of series live here, off the loops; a loop knows numbers.
package import Model
internal import Synchronization

/// The number of a series, and which life of that number: numbers of series that nobody serves any more are given to
/// others, and what a loop counted under an older life is not mixed with the new one's.
package struct SeriesID: Sendable, Hashable {
    let slot: UInt32
    let life: UInt32

    /// All that is beyond the bound, or has no name.
    static let other = SeriesID(slot: 0, life: 0)
}

/// Hands out series. One for the whole process; `labels(for:)` asks it off the loops.
package final class SeriesRegistry: Sendable {
    /// Most series of each of the three kinds; what is beyond is counted together as `other`.
    package static let defaultBound = 65_536
    /// A series that no snapshot has named for this long gives up its number.
    package static let secondsUntilForgotten: Int64 = 3600

    struct RouteKey: Hashable, Sendable {
        var ingress: String
        var host: String
        var path: String
    }

    /// The series of one kind.
    struct Family<Key: Hashable & Sendable>: Sendable {
        struct Entry: Sendable {
            var key: Key?
            var life: UInt32
            var seen: Int64
        }
        var slots: [Key: UInt32] = [:]
        var entries: [Entry] = [Entry(key: nil, life: 0, seen: .max)]
        var free: [UInt32] = []
        let bound: Int

        init(bound: Int) { self.bound = bound }

        mutating func series(_ key: Key, now: Int64) -> SeriesID {
            if let slot = slots[key] {
                entries[Int(slot)].seen = now
                return SeriesID(slot: slot, life: entries[Int(slot)].life)
            }
            if free.isEmpty, entries.count > bound { return .other }
            let slot: UInt32
            if let used = free.popLast() {
                slot = used
                entries[Int(used)] = Entry(key: key, life: entries[Int(used)].life &+ 1, seen: now)
            } else {
                slot = UInt32(truncatingIfNeeded: entries.count)
                entries.append(Entry(key: key, life: 0, seen: now))
            }
            slots[key] = slot
            return SeriesID(slot: slot, life: entries[Int(slot)].life)
        }

        /// None of them was given to others.
        func areAlive(_ ids: [SeriesID]) -> Bool {
            ids.allSatisfy {
                entries[Int($0.slot)].life == $0.life && ($0.slot == 0 || entries[Int($0.slot)].key != nil)
            }
        }

        /// Keeps a series from being forgotten; false if it was given to another since, or counts what has none.
        mutating func touch(_ id: SeriesID, now: Int64) -> Bool {
            let slot = Int(id.slot)
            guard slot != 0, entries[slot].life == id.life, entries[slot].key != nil else { return false }
            entries[slot].seen = now
            return true
        }

        mutating func forget(before time: Int64) {
            for slot in entries.indices.dropFirst() where entries[slot].seen < time {
                guard let key = entries[slot].key else { continue }
                slots[key] = nil
                entries[slot].key = nil
                free.append(UInt32(slot))
            }
        }
    }

    struct Families: Sendable {
        var routes: Family<RouteKey>
        var upstreams: Family<String>
        var scripts: Family<String>
        var relays: Family<String>
        var forgotten: Int64 = .min
    }

    let families: Mutex<Families>

    package init(bound: Int = SeriesRegistry.defaultBound) {
        families = Mutex(
            Families(
                routes: Family(bound: bound), upstreams: Family(bound: bound), scripts: Family(bound: bound),
                relays: Family(bound: bound)))
    }

    /// Compiles the series and the log names of a snapshot. `now` in seconds, on any clock that does not go back.
    ///
    /// `scripts` are the names and versions behind `ScriptRun.script` as the log shows them, `scriptSeries` their names as
    /// metrics do; nil takes those of `snapshot.scripts`, by their index. With `previous`, what is the same is not
    /// compiled anew.
    package func labels(
        for snapshot: Snapshot, scripts: [(name: String, version: String)]? = nil, scriptSeries: [String]? = nil,
        previous: TelemetryLabels? = nil, now: Int64
    ) -> TelemetryLabels {
        let scriptNames = scripts ?? snapshot.scripts.map { ($0.name, "") }
        return families.withLock { families in
            // An array that shares its storage with the last one's compares in no time.
            let isSameRoutes = previous.map { $0.snapshotRoutes == snapshot.routes } ?? false
            var names: [LogName] = []
            var routes: [SeriesID] = []
            if isSameRoutes, let previous, families.isAlive(previous.routes) {
                names = previous.routeNames
                routes = previous.routes
                families.touchRoutes(routes, now: now)
            } else {
                routes.reserveCapacity(snapshot.routes.count)
                names.reserveCapacity(snapshot.routes.count)
                let current = snapshot.routes
                let before = previous?.snapshotRoutes ?? []
                // By index: what is taken out of its array is copied.
                for index in current.indices {
                    // One change among thousands of routes moves most of them nowhere.
                    if let previous, index < before.count, before[index].ingress == current[index].ingress,
                        before[index].host == current[index].host,
                        before[index].path.path == current[index].path.path,
                        families.routes.touch(previous.routes[index], now: now)
                    {
                        routes.append(previous.routes[index])
                        names.append(previous.routeNames[index])
                        continue
                    }
                    let route = current[index]
                    let ingress = route.ingress.namespace + "/" + route.ingress.name
                    let key = RouteKey(ingress: ingress, host: route.host.description, path: route.path.path)
                    routes.append(families.routes.series(key, now: now))
                    names.append(LogName(ingress))
                }
            }
            var upstreams: [SeriesID] = []
            var upstreamNames: [LogName] = []
            if let previous, previous.hasSameUpstreams(as: snapshot), families.areAlive(upstreams: previous.upstreams) {
                upstreams = previous.upstreams
                upstreamNames = previous.upstreamNames
                families.touchUpstreams(upstreams, now: now)
            } else {
                upstreams.reserveCapacity(snapshot.upstreams.count)
                upstreamNames.reserveCapacity(snapshot.upstreams.count)
                let before = previous?.snapshotUpstreams ?? []
                var next = 0
                for index in snapshot.upstreams.indices {
                    let name = snapshot.upstreams[index].name
                    // Both are in order.
                    while next < before.count, before[next].name < name { next += 1 }
                    if let previous, next < before.count, before[next].name == name,
                        families.upstreams.touch(previous.upstreams[next], now: now)
                    {
                        upstreams.append(previous.upstreams[next])
                        upstreamNames.append(previous.upstreamNames[next])
                    } else {
                        upstreams.append(families.upstreams.series(name, now: now))
                        upstreamNames.append(LogName(name))
                    }
                }
            }
            let scripts = (scriptSeries ?? scripts?.map(\.name) ?? snapshot.scripts.map(\.qualifiedName)).map {
                families.scripts.series($0, now: now)
            }
            let relayNames =
                snapshot.tcpServices.map { "tcp:\($0.port)" } + snapshot.passthrough.map { "tls:\($0.pattern)" }
                + snapshot.udpServices.map { "udp:\($0.port)" }
            let relays = relayNames.map { families.relays.series($0, now: now) }
            if families.forgotten == .min || now - families.forgotten >= 60 {
                families.forgotten = now
                let time = now - Self.secondsUntilForgotten
                families.routes.forget(before: time)
                families.upstreams.forget(before: time)
                families.scripts.forget(before: time)
                families.relays.forget(before: time)
            }
            return TelemetryLabels(
                snapshotRoutes: snapshot.routes, snapshotUpstreams: snapshot.upstreams, routes: routes,
                upstreams: upstreams, scripts: scripts, relays: relays, routeNames: names,
                upstreamNames: upstreamNames, relayNames: relayNames.map { LogName($0) },
                scriptNames: scriptNames.map { LogName($0.name) },
                scriptVersions: scriptNames.map { LogName($0.version) })
        }
    }
}

extension SeriesRegistry.Families {
    func isAlive(_ ids: [SeriesID]) -> Bool { routes.areAlive(ids) }
    func areAlive(upstreams ids: [SeriesID]) -> Bool { upstreams.areAlive(ids) }

    mutating func touchUpstreams(_ ids: [SeriesID], now: Int64) {
        for id in ids where id.slot != 0 { upstreams.entries[Int(id.slot)].seen = now }
    }

    mutating func touchRoutes(_ ids: [SeriesID], now: Int64) {
        for id in ids where id.slot != 0 { routes.entries[Int(id.slot)].seen = now }
    }
}

/// The series and log names of one snapshot, by its indices. Immutable, shared by all loops; a request uses that of the
/// snapshot that it is pinned to.
package final class TelemetryLabels: Sendable {
    let snapshotRoutes: [Route]
    let snapshotUpstreams: [Upstream]
    let routes: [SeriesID]
    let upstreams: [SeriesID]
    let scripts: [SeriesID]
    let relays: [SeriesID]
    let relayNames: [LogName]
    let routeNames: [LogName]
    let upstreamNames: [LogName]
    let scriptNames: [LogName]
    let scriptVersions: [LogName]

    init(
        snapshotRoutes: [Route], snapshotUpstreams: [Upstream], routes: [SeriesID], upstreams: [SeriesID],
        scripts: [SeriesID], relays: [SeriesID], routeNames: [LogName], upstreamNames: [LogName],
        relayNames: [LogName], scriptNames: [LogName], scriptVersions: [LogName]
    ) {
        self.relays = relays
        self.relayNames = relayNames
        self.snapshotRoutes = snapshotRoutes
        self.snapshotUpstreams = snapshotUpstreams
        self.routes = routes
        self.upstreams = upstreams
        self.scripts = scripts
        self.routeNames = routeNames
        self.upstreamNames = upstreamNames
        self.scriptNames = scriptNames
        self.scriptVersions = scriptVersions
    }

    /// Before the first snapshot: everything is `other`.
    package static let none = TelemetryLabels(
        snapshotRoutes: [], snapshotUpstreams: [], routes: [], upstreams: [], scripts: [], relays: [],
        routeNames: [], upstreamNames: [], relayNames: [], scriptNames: [], scriptVersions: [])

    /// The same names in the same order: where only endpoints changed.
    func hasSameUpstreams(as snapshot: Snapshot) -> Bool {
        let (known, others) = (snapshotUpstreams, snapshot.upstreams)
        guard known.count == others.count else { return false }
        for i in known.indices where known[i].name != others[i].name { return false }
        return true
    }

    @inline(__always)
    func route(_ index: Int32) -> SeriesID { Self.series(routes, index) }
    @inline(__always)
    func upstream(_ index: Int32) -> SeriesID { Self.series(upstreams, index) }
    @inline(__always)
    func script(_ index: Int32) -> SeriesID { Self.series(scripts, index) }
    func relay(_ index: Int32) -> SeriesID { Self.series(relays, index) }

    @inline(__always)
    private static func series(_ list: [SeriesID], _ index: Int32) -> SeriesID {
        index >= 0 && Int(index) < list.count ? list[Int(index)] : .other
    }
}

/// A name as the access log writes it: escaped once, when the snapshot is compiled.
///
/// One reference, because thousands of them go from one snapshot's labels to the next one's.
final class LogName: Sendable {
    let json: [UInt8]
    let text: [UInt8]

    init(_ name: String) {
        let bytes = Array(name.utf8)
        var json: [UInt8] = []
        var text: [UInt8] = []
        LogEscape.json(bytes, bytes.indices, into: &json)
        LogEscape.word(bytes, bytes.indices, into: &text)
        self.json = json
        self.text = text
    }
}
