import KubernetesAPI
import KubernetesClient
import Testing

@Suite struct KubeconfigTests {
    private static let text = """
        apiVersion: v1
        kind: Config
        current-context: dev
        clusters:
        - name: dev
          cluster: {server: "https://dev.test:6443/", certificate-authority: pki/ca.crt, tls-server-name: api.internal}
        - name: prod
          cluster: {server: "https://prod.test", certificate-authority-data: Q0E=, insecure-skip-tls-verify: false}
        - name: lab
          cluster: {server: "http://127.0.0.1:8001", insecure-skip-tls-verify: true}
        - name: proxied
          cluster: {server: "https://x", proxy-url: "http://proxy"}
        contexts:
        - {name: dev, context: {cluster: dev, user: certificate, namespace: team}}
        - {name: prod, context: {cluster: prod, user: plugin}}
        - {name: lab, context: {cluster: lab}}
        - {name: file, context: {cluster: prod, user: file}}
        - {name: both, context: {cluster: prod, user: both}}
        - {name: basic, context: {cluster: prod, user: basic}}
        - {name: half, context: {cluster: prod, user: half}}
        - {name: nowhere, context: {cluster: gone, user: file}}
        - {name: nobody, context: {cluster: prod, user: gone}}
        - {name: proxied, context: {cluster: proxied}}
        - {name: old, context: {cluster: prod, user: old}}
        - {name: interactive, context: {cluster: prod, user: interactive}}
        - {name: alpha, context: {cluster: prod, user: alpha}}
        users:
        - name: certificate
          user: {client-certificate: /abs/c.crt, client-key-data: S0VZ}
        - name: plugin
          user:
            exec:
              apiVersion: client.authentication.k8s.io/v1
              command: ./bin/get-token
              args: [--cluster, prod]
              env: [{name: PROFILE, value: ops}]
              provideClusterInfo: true
              interactiveMode: IfAvailable
        - {name: file, user: {tokenFile: token}}
        - {name: both, user: {token: inline, tokenFile: /run/token}}
        - {name: basic, user: {username: u, password: p}}
        - {name: half, user: {client-certificate-data: Q0E=}}
        - {name: old, user: {auth-provider: {name: gcp}}}
        - name: interactive
          user: {exec: {apiVersion: client.authentication.k8s.io/v1, command: x, interactiveMode: Always}}
        - name: alpha
          user: {exec: {apiVersion: client.authentication.k8s.io/v1alpha1, command: x}}
        """

    private func access(_ context: String?) throws -> ClusterAccess {
        try Kubeconfig(text: Self.text, folder: "/etc/kube").access(context: context)
    }

    @Test func theCurrentContextAndItsFiles() throws {
        #expect(
            try access(nil)
                == ClusterAccess(
                    server: "https://dev.test:6443", namespace: "team",
                    certificateAuthority: .file("/etc/kube/pki/ca.crt"), clientCertificate: .file("/abs/c.crt"),
                    clientKey: .inline(Array("KEY".utf8)), serverName: "api.internal"))
    }

    @Test func aPlugin() throws {
        let access = try access("prod")
        #expect(access.certificateAuthority == .inline(Array("CA".utf8)))
        #expect(
            access.credential
                == .exec(
                    ExecPlugin(
                        apiVersion: "client.authentication.k8s.io/v1", command: "/etc/kube/./bin/get-token",
                        arguments: ["--cluster", "prod"], environment: ["PROFILE": "ops"], providesClusterInfo: true)))
    }

    @Test func otherCredentials() throws {
        #expect(try access("lab").credential == .none)
        #expect(try access("lab").skipsVerification)
        #expect(try access("file").credential == .tokenFile("/etc/kube/token"))
        #expect(try access("both").credential == .tokenFile("/run/token"))
        #expect(try access("basic").credential == .basic(user: "u", password: "p"))
    }

    @Test(arguments: [
        ("missing", "no context \"missing\""), ("nowhere", "the cluster \"gone\""), ("nobody", "the user \"gone\""),
        ("half", "without its key"), ("proxied", "proxy-url"), ("old", "auth-provider gcp"),
        ("interactive", "no terminal"), ("alpha", "v1alpha1"),
    ])
    func whatCannotBeUsedSaysWhy(context: String, problem: String) {
        let error = #expect(throws: AccessError.self) { try access(context) }
        #expect(error?.problem.contains(problem) == true, "\(String(describing: error))")
        #expect(error?.mend.isEmpty == false)
    }

    @Test func aSecretNeverStandsInAMessage() {
        let error = #expect(throws: AccessError.self) {
            try Kubeconfig(text: "users:\n- name: a\n  user: {token: [s3cr3t]}\n", folder: "/")
        }
        #expect(error?.description.contains("s3cr3t") == false)
        #expect(
            "\(Credential.token("s3cr3t"))\(Credential.basic(user: "u", password: "s3cr3t"))".contains("s3cr3t")
                == false)
        var dumped = ""
        dump(Credential.token("s3cr3t"), to: &dumped)
        #expect(!dumped.contains("s3cr3t"))
    }

    @Test func notYAMLAndNotAFile() {
        #expect(throws: AccessError.self) { try Kubeconfig(text: "a: [", folder: "/") }
        #expect(throws: AccessError.self) { try Kubeconfig(files: ["/nonexistent/kubeconfig"]) }
        #expect(throws: AccessError.self) { try Kubeconfig(files: []) }
    }

    @Test func anEarlierFileGoesFirst() throws {
        try withFolder { folder in
            try folder.write("one", "current-context: a\ncontexts: [{name: a, context: {cluster: a}}]\n")
            try folder.write(
                "two",
                "current-context: b\nclusters: [{name: a, cluster: {server: \"https://a\"}}]\n"
                    + "contexts: [{name: a, context: {cluster: b}}]\n")
            let access = try Kubeconfig(files: [folder.path("one"), folder.path("two")]).access()
            #expect(access.server == "https://a")
        }
    }
}
