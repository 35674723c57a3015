// The keys of session tickets that all replicas share: one Secret, made and changed by whoever leads, and taken from the
// watch by all, so that a client resumes wherever a balancer sends it. A Secret that somebody else has written is his.

import KubernetesAPI
import KubernetesClient
import Logging

/// Keeps the Secret of `--ticket-keys-secret` while this replica leads.
struct TicketKeeper: Sendable {
    /// How long a key seals before the next takes its place; four of them open tickets for the 12 hours that sessions may
    /// be resumed (RFC 5077 §5.5).
    static let period: Int64 = 4 * 3600
    static let kept = 4
    /// A key: its name, and what ciphers and signs.
    static let keySize = 80
    static let entry = "ticket.keys"
    /// When the newest key was made. Without it, the Secret is not ours to change.
    static let madeAt = "moongate.dev/ticket-key-made"

    let secret: ObjectName
    let client: APIClient
    let clock: any ControlClock
    let log: Logger

    /// Looks after the Secret until the task is cancelled.
    func run() async {
        var backoff = Backoff(first: .seconds(1), limit: .seconds(60))
        while !Task.isCancelled {
            var delay: Duration
            do throws(APIError) {
                delay = try await look()
                backoff.reset()
            } catch {
                log.warning(
                    "The keys of session tickets can't be kept",
                    metadata: ["secret": "\(secret)", "error": "\(error)"])
                delay = backoff.delay(atLeast: error.retryAfter, random: clock.random())
            }
            do { try await clock.sleep(for: delay) } catch { return }
        }
    }

    /// Makes the Secret, or gives it a new key where the newest is old enough.
    /// - Returns: how long nothing needs to be done.
    private func look() async throws(APIError) -> Duration {
        let now = clock.wallTime().seconds
        var found: Secret
        do throws(APIError) {
            found = try await client.get(Secret.self, namespace: secret.namespace, name: secret.name)
        } catch {
            guard error.code == .notFound else { throw error }
            var made = Secret(metadata: ObjectMeta(name: secret.name, namespace: secret.namespace), type: "Opaque")
            add(to: &made, now)
            return try await write(made) { made throws(APIError) in try await client.create(made) }
        }
        guard let text = found.metadata.annotations[Self.madeAt], let made = Timestamp(text) else {
            // Somebody else makes and changes these keys.
            return .seconds(600)
        }
        let age = now - made.seconds
        // A clock that was far ahead must not hold up the next key for ever, nor keys that nobody can read.
        if age >= 0, age < Self.period, Self.isWhole(found) { return .seconds(min(Self.period - age, 600)) }
        add(to: &found, now)
        return try await write(found) { found throws(APIError) in try await client.replace(found) }
    }

    private func write(
        _ new: Secret, _ body: (Secret) async throws(APIError) -> Secret
    ) async throws(APIError) -> Duration {
        do throws(APIError) {
            _ = try await body(new)
            log.info("Session tickets have a new key", metadata: ["secret": "\(secret)"])
            return .seconds(600)
        } catch {
            // Somebody was faster: what is there is looked at again.
            guard error.code == .conflict || error.code == .alreadyExists else { throw error }
            return .seconds(1)
        }
    }

    private func add(to secret: inout Secret, _ now: Int64) {
        var random = SystemRandomNumberGenerator()
        var keys = (0..<Self.keySize).map { _ in UInt8.random(in: 0...255, using: &random) }
        if Self.isWhole(secret), let before = secret.bytes(Self.entry) {
            keys += before.prefix((Self.kept - 1) * Self.keySize)
        }
        secret.data[Self.entry] = Base64(keys)
        secret.metadata.annotations[Self.madeAt] = Timestamp(seconds: now).description
    }

    private static func isWhole(_ secret: Secret) -> Bool {
        guard let bytes = secret.bytes(entry) else { return false }
        return !bytes.isEmpty && bytes.count % keySize == 0
    }
}
