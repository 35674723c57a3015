import KubernetesClient
import Testing

@Suite struct ServiceAccountTests {
    private let environment = ["KUBERNETES_SERVICE_HOST": "10.0.0.1", "KUBERNETES_SERVICE_PORT": "443"]

    @Test func whatThePodIsGiven() throws {
        try withFolder { folder in
            try folder.write("token", "t")
            try folder.write("namespace", "moongate\n")
            let access = try ClusterAccess.inCluster(environment: environment, folder: folder.root)
            #expect(
                access
                    == ClusterAccess(
                        server: "https://10.0.0.1:443", namespace: "moongate",
                        certificateAuthority: .file(folder.path("ca.crt")), credential: .tokenFile(folder.path("token"))
                    ))
        }
    }

    @Test func sixthVersionAddressesStandInBrackets() throws {
        try withFolder { folder in
            try folder.write("token", "t")
            let access = try ClusterAccess.inCluster(
                environment: ["KUBERNETES_SERVICE_HOST": "fd00::1", "KUBERNETES_SERVICE_PORT": "443"],
                folder: folder.root)
            #expect(access.server == "https://[fd00::1]:443")
        }
    }

    @Test func outsideOfAPod() throws {
        #expect(throws: AccessError.self) { try ClusterAccess.inCluster(environment: [:]) }
        try withFolder { folder in
            let error = #expect(throws: AccessError.self) {
                try ClusterAccess.inCluster(environment: environment, folder: folder.root)
            }
            #expect(error?.mend.contains("automountServiceAccountToken") == true)
        }
    }
}
