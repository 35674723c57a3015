// `moongate run`: the proxy itself, fed by a folder of manifests or by a cluster.

import ArgumentParser
import Foundation

struct RunCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "run", abstract: "Serve Ingresses: of the cluster, or from a folder of manifests.",
        discussion: """
            Without --manifests, the Ingresses of a cluster are served: of the one that the pod runs in, or of the one \
            that --kubeconfig (or KUBECONFIG) names.
            """)

    @OptionGroup
    var flags: RunFlags

    func run() async throws {
        let settings = try await Settings.resolve(flags)
        if let directory = settings.manifests {
            try await Standalone(settings: settings, directory: directory).run()
        } else {
            try await InCluster(settings: settings, environment: ProcessInfo.processInfo.environment).run()
        }
    }
}
