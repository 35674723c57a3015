// The listeners beside the data plane's: of the admin server and the webhook. SwiftNIO binds them; what goes wrong is told
// as everything that is wrong with a setting, and addresses mean what they mean to `--http`.

import Foundation
import Model
import NIOCore
import SystemPackage

enum ControlListener {
    /// Binds `wanted`. `[::]` stands for every address of the machine, so where the machine has no IPv6, `0.0.0.0` stands
    /// in for it, as for the data plane's listeners.
    /// - Parameter key: the setting that names the address.
    static func open<Bound>(
        _ wanted: Model.SocketAddress, key: String, bind: (Model.SocketAddress) async throws -> Bound
    ) async throws -> Bound {
        do {
            do {
                return try await bind(wanted)
            } catch let error as IOError
                where error.errnoCode == EAFNOSUPPORT && wanted.ip == IPAddress(high: 0, low: 0)
            {
                return try await bind(Model.SocketAddress(ip: IPAddress(v4: 0), port: wanted.port))
            }
        } catch let error as IOError {
            throw SettingsError(
                problem: "cannot listen on \(wanted): \(Errno(rawValue: error.errnoCode))", key: key,
                mend: "name another address (port 0 takes a free one), or end what listens there")
        }
    }
}
