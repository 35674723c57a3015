// The encoders of one loop. They cost memory for as long as a response is under way, and a slow reader keeps one for as
// long as it likes: what all of them take is bounded, and a response that finds none free goes out as it came.
package import Model

/// Belongs to one loop.
package final class EncoderPool {
    private let levels: CodingLevels
    private let memory: Int
    private var spare: [ContentEncoder] = []
    /// What the encoders take that are lent or kept, in bytes.
    package private(set) var held = 0
    /// How many are lent.
    package private(set) var lent = 0

    /// More spare ones than this of all codings are let go: an idle loop keeps little.
    private static let mostSpare = 6

    /// `memory` in bytes; one encoder of each coding is allowed whatever it says.
    package init(levels: CodingLevels, memory: Int) {
        self.levels = levels
        self.memory = memory
    }

    private func cost(_ coding: ContentCoding) -> Int { ContentEncoder.memory(coding, level: levels[coding]) }

    /// An encoder at the beginning of a body; nil when the bound is reached, or there is no memory.
    package func take(_ coding: ContentCoding) -> ContentEncoder? {
        if let index = spare.lastIndex(where: { $0.coding == coding }) {
            lent += 1
            return spare.remove(at: index)
        }
        let cost = cost(coding)
        while held + cost > memory, !spare.isEmpty {
            held -= self.cost(spare.removeFirst().coding)
        }
        guard held + cost <= memory || lent == 0, let encoder = ContentEncoder(coding, level: levels[coding]) else {
            return nil
        }
        held += cost
        lent += 1
        return encoder
    }

    /// Takes an encoder back, whatever became of its body.
    package func giveBack(_ encoder: ContentEncoder) {
        lent -= 1
        if spare.count < Self.mostSpare, held <= memory, encoder.reset() {
            spare.append(encoder)
        } else {
            held -= cost(encoder.coding)
        }
    }
}
