// What a machine answers: a short list of small orders, held in one word.

/// An action of a machine: a plain case, so that a list of them needs no memory of its own.
protocol MachineAction: RawRepresentable, Equatable, Sendable where RawValue == UInt8 {}

/// Up to eight actions in the order in which they are to be carried out.
///
/// A machine that returned an array would allocate one for every event of every request; a word does not.
struct Actions<Action: MachineAction>: Equatable, Sendable, ExpressibleByArrayLiteral {
    private var packed: UInt64 = 0
    private(set) var count = 0

    init() {}

    init(arrayLiteral actions: Action...) {
        for action in actions { append(action) }
    }

    @inline(__always)
    init(_ a: Action) {
        packed = UInt64(a.rawValue)
        count = 1
    }

    @inline(__always)
    init(_ a: Action, _ b: Action) {
        packed = UInt64(a.rawValue) | UInt64(b.rawValue) << 8
        count = 2
    }

    @inline(__always)
    init(_ a: Action, _ b: Action, _ c: Action) {
        packed = UInt64(a.rawValue) | UInt64(b.rawValue) << 8 | UInt64(c.rawValue) << 16
        count = 3
    }

    /// The longest answer of any machine has four actions; a ninth would be a mistake in a machine, and is told in
    /// debug builds.
    @inline(__always)
    mutating func append(_ action: Action) {
        assert(count < 8)
        guard count < 8 else { return }
        packed |= UInt64(action.rawValue) << UInt64(8 * count)
        count += 1
    }

    /// Takes the first action off the list.
    @inline(__always)
    mutating func next() -> Action? {
        guard count > 0 else { return nil }
        let action = Action(rawValue: UInt8(truncatingIfNeeded: packed))
        packed >>= 8
        count -= 1
        return action
    }

    var all: [Action] {
        var copy = self
        var list: [Action] = []
        while let action = copy.next() { list.append(action) }
        return list
    }
}
