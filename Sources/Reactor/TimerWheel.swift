// Time-outs of a loop, kept cheap: a deadline is a number in its connection, and the wheel only says when to look.

/// A coarse wheel of tokens.
///
/// A connection stores its deadline itself and changes it as often as it likes for the price of a store. The wheel
/// holds at least one entry for it, due no later than the deadline. When the entry comes up, the owner compares: if
/// the deadline has moved on, it schedules anew, else the time-out is real. An entry is never removed early; one whose
/// connection is gone falls out when it comes up, because its generation is old.
package struct TimerWheel {
    package static let tickMilliseconds: UInt64 = 32
    private static let slots = 2048

    private var wheel: [[Token]]
    private var occupied: [UInt64]
    private var current: UInt64
    private var entries = 0
    /// Reused in `advance`, so that a tick allocates nothing.
    private var due: [Token] = []

    /// `now` in milliseconds, on any clock that does not run backwards.
    package init(now: UInt64) {
        wheel = Array(repeating: [], count: Self.slots)
        occupied = Array(repeating: 0, count: Self.slots / 64)
        current = now / Self.tickMilliseconds
    }

    package var isEmpty: Bool { entries == 0 }
    package var count: Int { entries }

    /// Has `token` come up at `deadline` or up to one tick after, or earlier when it is further off than the wheel
    /// reaches. Answers the time at which it will come up.
    package mutating func schedule(_ token: Token, at deadline: UInt64) -> UInt64 {
        let rounded = deadline / Self.tickMilliseconds + (deadline % Self.tickMilliseconds == 0 ? 0 : 1)
        let tick = min(max(rounded, current + 1), current + UInt64(Self.slots) - 1)
        let slot = Int(tick % UInt64(Self.slots))
        wheel[slot].append(token)
        occupied[slot / 64] |= 1 << UInt64(slot % 64)
        entries += 1
        return tick * Self.tickMilliseconds
    }

    /// Calls `body` with every token that has come up until `now`. `body` may schedule through the worker that owns
    /// the wheel only after `advance` has returned; hence the list is handed out.
    package mutating func advance(to now: UInt64) -> [Token] {
        due.removeAll(keepingCapacity: true)
        let target = now / Self.tickMilliseconds
        guard target > current else { return due }
        if entries == 0 {
            current = target
            return due
        }
        // After a long sleep every slot is due once, not many times.
        var tick = max(current + 1, target >= UInt64(Self.slots) ? target - UInt64(Self.slots) + 1 : 0)
        while tick <= target {
            let slot = Int(tick % UInt64(Self.slots))
            if occupied[slot / 64] & 1 << UInt64(slot % 64) != 0 {
                due.append(contentsOf: wheel[slot])
                entries -= wheel[slot].count
                // A slot that was once crowded gives its memory back.
                wheel[slot].removeAll(keepingCapacity: wheel[slot].capacity <= 64)
                occupied[slot / 64] &= ~(1 << UInt64(slot % 64))
            }
            tick += 1
        }
        current = target
        return due
    }

    /// How long the loop may wait before something comes up: milliseconds, or nil for ever.
    package func wait(from now: UInt64) -> UInt64? {
        if entries == 0 { return nil }
        // Walks words of 64 slots from the next tick on; the wheel is never empty here.
        var distance = 1
        while distance < Self.slots {
            let slot = Int((current + UInt64(distance)) % UInt64(Self.slots))
            let word = occupied[slot / 64] >> UInt64(slot % 64)
            if word != 0 {
                let due = (current + UInt64(distance + word.trailingZeroBitCount)) * Self.tickMilliseconds
                return due > now ? due - now : 0
            }
            distance += 64 - slot % 64
        }
        return Self.tickMilliseconds
    }
}
