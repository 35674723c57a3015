// One kind in one scope, followed for ever: list, then watch from the list's version, and again when the watch can't go
// on. A listener never sees less than the last complete list: a new list is handed over when its last page is there.

package import KubernetesAPI
package import Logging

/// What a reflector tells its listener, in order.
package enum ReflectorNews<Object: APIResource>: Sendable {
    /// A complete list: what is not in it is gone. Unreadable objects keep their last good version, if there is one.
    case listed([Object], unreadable: [UnreadableObject])
    case changed(Object)
    case removed(ObjectName)
    case unreadable(UnreadableObject)
    /// The API server answers, and what is known is no older than its answer.
    case healthy
    /// It does not, or refuses; what is known stays.
    case trouble(APIError)
}

package struct Reflector<Object: APIResource>: Sendable {
    private let client: APIClient
    private let scope: WatchScope
    private let clock: any ControlClock
    private let log: Logger
    private let pageSize: Int
    private let listener: @Sendable (ReflectorNews<Object>) -> Void

    /// A role that forbids something rarely changes within seconds.
    private static var forbiddenDelay: Duration { .seconds(30) }
    /// A watch that lived this long is no sign of trouble when it ends.
    private static var soundLife: Duration { .seconds(5) }

    package init(
        client: APIClient, scope: WatchScope, clock: any ControlClock, log: Logger, pageSize: Int = 500,
        listener: @escaping @Sendable (ReflectorNews<Object>) -> Void
    ) {
        self.client = client
        self.scope = scope
        self.clock = clock
        self.pageSize = pageSize
        self.listener = listener
        var log = log
        log[metadataKey: "resource"] = "\(Object.plural)"
        log[metadataKey: "scope"] = "\(scope)"
        self.log = log
    }

    /// What is true between two attempts: the version to go on from, if there is one.
    private enum Position {
        case unlisted
        case at(version: String)
    }

    private struct Progress {
        var position = Position.unlisted
        var backoff = Backoff()
        var lastTrouble: APIError.Code?
    }

    /// Returns when its task is cancelled, and never otherwise.
    package func run() async {
        var progress = Progress()
        while !Task.isCancelled {
            do {
                switch progress.position {
                case .unlisted: try await list(&progress)
                case .at(let version): try await watch(after: version, &progress)
                }
            } catch {
                if Task.isCancelled { return }
                do {
                    try await recover(from: error, &progress)
                } catch {
                    return
                }
            }
        }
    }

    private func list(_ progress: inout Progress) async throws(APIError) {
        var objects: [Object] = []
        var unreadable: [UnreadableObject] = []
        var continuation: String?
        var version = ""
        repeat {
            let page = try await client.page(of: Object.self, in: scope, limit: pageSize, continuation: continuation)
            objects.append(contentsOf: page.objects)
            unreadable.append(contentsOf: page.unreadable)
            // All pages of one list are of one moment; the last one's version is the one to watch from.
            version = page.resourceVersion
            continuation = page.continuation
        } while continuation != nil
        listener(.listed(objects, unreadable: unreadable))
        healthy(&progress)
        progress.position = .at(version: version)
    }

    private func watch(after version: String, _ progress: inout Progress) async throws(APIError) {
        let started = clock.now()
        var latest = version
        var delivered = 0
        // Spread, so that watches begun together do not end together.
        let seconds = 290 + Int(clock.random() * 290)
        defer {
            progress.position = .at(version: latest)
            // Whoever gets events or holds a watch for a while is not in trouble, however it ends.
            if delivered > 0 || clock.now() - started >= Self.soundLife { progress.backoff.reset() }
        }
        try await client.watch(
            Object.self, in: scope, after: version, seconds: seconds, opened: { healthy(&progress) },
            news: { (news: WatchNews<Object>) in
                delivered += 1
                switch news {
                case .changed(let object):
                    latest = object.metadata.resourceVersion ?? latest
                    listener(.changed(object))
                case .removed(let name, let resourceVersion):
                    latest = resourceVersion ?? latest
                    listener(.removed(name))
                case .unreadable(let object):
                    latest = object.resourceVersion ?? latest
                    log.error(
                        "An object can't be read; its last good version stays",
                        metadata: ["name": "\(object.name)", "problem": "\(object.problem)"])
                    listener(.unreadable(object))
                case .bookmark(let resourceVersion): latest = resourceVersion
                }
            })
        if delivered == 0, clock.now() - started < Self.soundLife {
            throw APIError(.unreachable, "the watch ended as soon as it had begun")
        }
    }

    private func healthy(_ progress: inout Progress) {
        if progress.lastTrouble != nil {
            log.info("The watch goes on")
            progress.lastTrouble = nil
        }
        listener(.healthy)
    }

    /// Waits as the error asks for; throws only when cancelled.
    private func recover(from error: APIError, _ progress: inout Progress) async throws {
        var floor = error.retryAfter
        let isNew = progress.lastTrouble != error.code
        switch error.code {
        case .expired:
            // The version is no longer kept: a new list, while the old contents go on being served.
            progress.position = .unlisted
            log.info("The watched version is too old; listing again")
        case .forbidden:
            progress.position = .unlisted
            floor = Self.forbiddenDelay
            progress.lastTrouble = error.code
            if isNew {
                log.error(
                    "The role does not let us list and watch this kind",
                    metadata: [
                        "error": "\(error.message)", "verbs": "list, watch", "apiVersion": "\(Object.apiVersion)",
                    ])
            }
            listener(.trouble(error))
        case .invalid, .notFound:
            // The server does not know the kind, or does not take our version: start over, slowly.
            progress.position = .unlisted
            floor = Self.forbiddenDelay
            progress.lastTrouble = error.code
            if isNew {
                log.error("The API server does not have this kind as we ask for it", metadata: ["error": "\(error)"])
            }
            listener(.trouble(error))
        case .unreachable, .timedOut, .noCredential, .unauthorized, .tooManyRequests, .server, .unreadable, .conflict,
            .alreadyExists:
            // An event that can't be read would come again, for ever, from the same version: a list gets past it.
            if error.code == .unreadable { progress.position = .unlisted }
            progress.lastTrouble = error.code
            if isNew {
                // What is wrong with the server or with us is the same for all kinds: said once, and then for experts.
                var facts: Logger.Metadata = ["error": "\(error)"]
                if let mend = error.mend { facts["mend"] = "\(mend)" }
                log.log(
                    level: client.isNews(error) ? .warning : .debug, "A watch is in trouble; what is known stays",
                    metadata: facts)
            }
            listener(.trouble(error))
        }
        try await clock.sleep(for: progress.backoff.delay(atLeast: floor, random: clock.random()))
    }
}
