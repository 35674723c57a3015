import Testing

@testable import Scripting

@Suite struct XXH64Tests {
    /// Published vectors of the reference implementation.
    @Test(
        arguments: [
            ("", 0xef46_db37_51d8_e999), ("a", 0xd24e_c4f1_a98c_6e5b), ("abc", 0x44bc_2cf5_ad77_0999),
            ("Nobody inspects the spammish repetition", 0xfbce_a83c_8a37_8bf1),
        ] as [(String, UInt64)])
    func knownVectors(_ text: String, _ hash: UInt64) {
        #expect(XXH64.hash(Array(text.utf8).span) == hash)
    }

    /// The reference implementation's own self-test: a buffer made by a generator, at lengths that take every branch.
    @Test(
        arguments: [
            (0, 0, 0xef46_db37_51d8_e999), (0, 2_654_435_761, 0xac75_fda2_929b_17ef),
            (1, 0, 0xe934_a84a_db05_2768), (1, 2_654_435_761, 0x5014_607643a9b4c3),
            (4, 0, 0x9136_a0dc_a574_57ee), (14, 0, 0x8282_dcc4_994e_35c8),
            (14, 2_654_435_761, 0xc3bd_6bf6_3deb_6df0), (222, 0, 0xb641_ae8c_b691_c174),
            (222, 2_654_435_761, 0x20cb_8ab7_ae10_c14a),
        ] as [(Int, UInt64, UInt64)])
    func selfTest(_ count: Int, _ seed: UInt64, _ hash: UInt64) {
        var buffer: [UInt8] = []
        var generator: UInt64 = 2_654_435_761
        for _ in 0..<count {
            buffer.append(UInt8(generator >> 56))
            generator &*= 0x9e37_79b1_85eb_ca8d
        }
        #expect(XXH64.hash(buffer.span, seed: seed) == hash)
    }
}
