// swift-tools-version: 6.2
// The floor plan: one target a room. Which room may import which is checked at build time
// (`--explicit-target-dependency-import-check error`), so a dependency that is not listed here cannot be used.
import PackageDescription

/// Every Swift target is built with the same rules: Swift 6 mode, imports internal unless said otherwise,
/// `unsafe` written out wherever memory safety rests on a proof, and warnings refused.
let rules: [SwiftSetting] = [
    .swiftLanguageMode(.v6),
    .enableUpcomingFeature("InternalImportsByDefault"),
    .enableUpcomingFeature("ExistentialAny"),
    .enableUpcomingFeature("MemberImportVisibility"),
    .enableExperimentalFeature("Lifetimes"),
    .strictMemorySafety(),
    .treatAllWarnings(as: .error),
]

/// The data plane's rooms. Overlapping accesses to a variable are refused at compile time where the compiler can see
/// them, and checked at run time in debug and sanitizer builds, in which all tests run; the run-time half costs a
/// release build two fifths of the instructions of a proxied request, and is left out there.
let hot: [SwiftSetting] =
    rules + [
        .unsafeFlags(["-enforce-exclusivity=unchecked"], .when(configuration: .release))
    ]

let package = Package(
    name: "moongate",
    platforms: [.macOS(.v15)],
    products: [.executable(name: "moongate", targets: ["moongate"])],
    dependencies: [
        .package(url: "https://github.com/apple/swift-argument-parser", from: "1.8.2"),
        .package(url: "https://github.com/apple/swift-asn1", from: "1.7.4"),
        .package(url: "https://github.com/apple/swift-certificates", from: "1.21.1"),
        .package(url: "https://github.com/apple/swift-configuration", from: "1.4.0", traits: ["JSON", "YAML"]),
        .package(url: "https://github.com/apple/swift-crypto", from: "4.5.2"),
        .package(url: "https://github.com/apple/swift-http-types", from: "1.8.0"),
        .package(url: "https://github.com/apple/swift-log", from: "1.16.2"),
        .package(url: "https://github.com/apple/swift-nio", from: "2.101.2"),
        .package(url: "https://github.com/apple/swift-nio-ssl", from: "2.37.6"),
        .package(url: "https://github.com/apple/swift-system", from: "1.8.1"),
        .package(url: "https://github.com/hummingbird-project/hummingbird", from: "2.28.1"),
        .package(url: "https://github.com/jpsim/Yams", from: "6.2.2"),
        .package(url: "https://github.com/swift-server/async-http-client", from: "1.37.0"),
        .package(url: "https://github.com/swift-server/swift-service-lifecycle", from: "2.13.0"),
    ],
    targets: [
        // C modules: the distribution's libraries, and our shims over them.
        .systemLibrary(name: "CLua54", pkgConfig: "lua5.4", providers: [.apt(["liblua5.4-dev"])]),
        .systemLibrary(name: "CLinux"),
        .systemLibrary(name: "CPCRE2", pkgConfig: "libpcre2-8", providers: [.apt(["libpcre2-dev"])]),
        .systemLibrary(name: "COpenSSL", pkgConfig: "openssl", providers: [.apt(["libssl-dev"])]),
        .systemLibrary(name: "CNGHTTP2", pkgConfig: "libnghttp2", providers: [.apt(["libnghttp2-dev"])]),
        .systemLibrary(name: "CZlib", pkgConfig: "zlib", providers: [.apt(["zlib1g-dev"])]),
        .systemLibrary(name: "CBrotli", pkgConfig: "libbrotlienc", providers: [.apt(["libbrotli-dev"])]),
        .systemLibrary(name: "CZstd", pkgConfig: "libzstd", providers: [.apt(["libzstd-dev"])]),
        .target(
            name: "CLua", dependencies: ["CLua54"],
            cSettings: [.unsafeFlags(["-std=gnu11", "-Wall", "-Wextra", "-Werror", "-O2"])]),

        .target(
            name: "CTLS", dependencies: ["COpenSSL"],
            cSettings: [.unsafeFlags(["-std=gnu11", "-Wall", "-Wextra", "-Werror", "-O2"])]),

        // Shared words.
        .target(name: "Model", swiftSettings: hot),

        // Data plane.
        .target(name: "HTTPWire", dependencies: ["Model"], swiftSettings: hot),
        .target(name: "Routing", dependencies: ["Model"], swiftSettings: hot),
        .target(name: "Upstreams", dependencies: ["Model"], swiftSettings: hot),
        .target(name: "Scripting", dependencies: ["CLua", "CPCRE2", "COpenSSL", "Model"], swiftSettings: hot),
        .target(name: "Middlewares", dependencies: ["Scripting", "HTTPWire", "Model"], swiftSettings: hot),
        .target(name: "Telemetry", dependencies: ["Model"], swiftSettings: hot),
        .target(name: "Reactor", dependencies: ["CLinux"], swiftSettings: hot),
        .target(name: "TLSEngine", dependencies: ["CTLS", "Model"], swiftSettings: hot),
        .target(name: "HTTP2Engine", dependencies: ["CNGHTTP2", "Model"], swiftSettings: hot),
        .target(
            name: "Compression", dependencies: ["CBrotli", "CZlib", "CZstd", "Model"], swiftSettings: hot),
        .target(
            name: "Proxy",
            dependencies: [
                "Compression", "HTTP2Engine", "HTTPWire", "Middlewares", "Model", "Reactor", "Routing", "TLSEngine",
                "Telemetry", "Upstreams",
            ],
            swiftSettings: hot),

        // Control plane.
        .target(
            name: "KubernetesAPI", dependencies: [.product(name: "Yams", package: "Yams")], swiftSettings: rules),
        .target(name: "Manifests", dependencies: ["KubernetesAPI", "Model"], swiftSettings: rules),
        .target(name: "IngressTranslation", dependencies: ["KubernetesAPI", "Model"], swiftSettings: rules),
        .target(
            name: "KubernetesClient",
            dependencies: [
                "KubernetesAPI",
                .product(name: "AsyncHTTPClient", package: "async-http-client"),
                .product(name: "Logging", package: "swift-log"),
                .product(name: "NIOCore", package: "swift-nio"),
                .product(name: "NIOFoundationCompat", package: "swift-nio"),
                .product(name: "NIOHTTP1", package: "swift-nio"),
                .product(name: "NIOPosix", package: "swift-nio"),
                .product(name: "NIOSSL", package: "swift-nio-ssl"),
                .product(name: "SystemPackage", package: "swift-system"),
                .product(name: "Yams", package: "Yams"),
            ],
            swiftSettings: rules),
        .target(
            name: "Controller",
            dependencies: [
                "IngressTranslation", "KubernetesAPI", "KubernetesClient", "Model",
                .product(name: "Logging", package: "swift-log"),
            ],
            swiftSettings: rules),
        .target(
            name: "Admission",
            dependencies: [
                "IngressTranslation", "KubernetesAPI", "KubernetesClient", "Model", "Scripting",
                .product(name: "Crypto", package: "swift-crypto"),
                .product(name: "Logging", package: "swift-log"),
                .product(name: "NIOCore", package: "swift-nio"),
                .product(name: "NIOHTTP1", package: "swift-nio"),
                .product(name: "NIOPosix", package: "swift-nio"),
                .product(name: "NIOSSL", package: "swift-nio-ssl"),
                .product(name: "SwiftASN1", package: "swift-asn1"),
                .product(name: "X509", package: "swift-certificates"),
            ],
            swiftSettings: rules),
        .target(
            name: "Admin",
            dependencies: [
                "Model", "Telemetry",
                .product(name: "HTTPTypes", package: "swift-http-types"),
                .product(name: "Hummingbird", package: "hummingbird"),
                .product(name: "HummingbirdCore", package: "hummingbird"),
                .product(name: "Logging", package: "swift-log"),
                .product(name: "NIOCore", package: "swift-nio"),
                .product(name: "NIOPosix", package: "swift-nio"),
                .product(name: "ServiceLifecycle", package: "swift-service-lifecycle"),
            ],
            swiftSettings: rules),

        // The program.
        .executableTarget(
            name: "moongate",
            dependencies: [
                "Admin", "Admission", "Controller", "HTTPWire", "IngressTranslation", "KubernetesAPI",
                "KubernetesClient", "Manifests",
                "Middlewares", "Model", "Proxy", "Reactor", "Routing", "Scripting", "TLSEngine", "Telemetry",
                "Upstreams",
                .product(name: "ArgumentParser", package: "swift-argument-parser"),
                .product(name: "AsyncHTTPClient", package: "async-http-client"),
                .product(name: "Configuration", package: "swift-configuration"),
                .product(name: "HTTPTypes", package: "swift-http-types"),
                .product(name: "Hummingbird", package: "hummingbird"),
                .product(name: "Logging", package: "swift-log"),
                .product(name: "NIOCore", package: "swift-nio"),
                .product(name: "NIOFoundationCompat", package: "swift-nio"),
                .product(name: "NIOHTTP1", package: "swift-nio"),
                .product(name: "SystemPackage", package: "swift-system"),
                .product(name: "UnixSignals", package: "swift-service-lifecycle"),
            ],
            swiftSettings: rules),

        // Tests: one target a room.
        .target(name: "MoongateTesting", dependencies: ["Model"], swiftSettings: rules),
        // The other side of the compression, for tests.
        .target(
            name: "CompressionTesting", dependencies: ["CBrotli", "CZlib", "CZstd", "Model"], swiftSettings: rules),
        // A client that says exactly what it is told to: for the rooms' tests, which have no socket.
        .target(name: "HTTP2Testing", dependencies: ["CNGHTTP2"], swiftSettings: rules),
        // Apart from MoongateTesting because it stands on SwiftNIO, which no other room's tests should wait for.
        .target(
            name: "ClusterTesting",
            dependencies: [
                "KubernetesAPI", "KubernetesClient",
                .product(name: "NIOCore", package: "swift-nio"),
                .product(name: "NIOHTTP1", package: "swift-nio"),
                .product(name: "NIOPosix", package: "swift-nio"),
                .product(name: "NIOSSL", package: "swift-nio-ssl"),
            ],
            swiftSettings: rules),
        // `make bench-scale`; a program of its own, so that it costs the other only what an API server would.
        .executableTarget(
            name: "ScaleBenchmark",
            dependencies: ["ClusterTesting", "KubernetesAPI", "KubernetesClient", "MoongateTesting"],
            path: "Tests/ScaleBenchmark", swiftSettings: rules),
        .testTarget(name: "HTTPWireTests", dependencies: ["HTTPWire", "Model"], swiftSettings: rules),
        .testTarget(name: "RoutingTests", dependencies: ["Model", "Routing"], swiftSettings: rules),
        .testTarget(name: "UpstreamsTests", dependencies: ["Model", "Upstreams"], swiftSettings: rules),
        .testTarget(name: "ScriptingTests", dependencies: ["Model", "Scripting"], swiftSettings: rules),
        .testTarget(
            name: "MiddlewaresTests", dependencies: ["HTTPWire", "Middlewares", "Model", "Scripting"],
            swiftSettings: rules),
        .testTarget(
            name: "CompressionTests", dependencies: ["Compression", "CompressionTesting", "Model"],
            swiftSettings: rules),
        .testTarget(name: "TelemetryTests", dependencies: ["Model", "Telemetry"], swiftSettings: rules),
        .testTarget(name: "ReactorTests", dependencies: ["Reactor"], swiftSettings: rules),
        .testTarget(name: "TLSEngineTests", dependencies: ["Model", "TLSEngine"], swiftSettings: rules),
        .testTarget(
            name: "HTTP2EngineTests", dependencies: ["HTTP2Engine", "HTTP2Testing", "Model"], swiftSettings: rules),
        .testTarget(
            name: "ProxyTests",
            dependencies: [
                "Compression", "CompressionTesting", "HTTP2Testing", "HTTPWire", "Middlewares", "Model", "Proxy",
                "Reactor", "Routing", "TLSEngine",
                "Telemetry",
                "Upstreams",
            ], swiftSettings: rules),
        .testTarget(
            name: "AdmissionTests",
            dependencies: [
                "Admission", "ClusterTesting", "IngressTranslation", "KubernetesAPI", "KubernetesClient", "Model",
                .product(name: "Logging", package: "swift-log"), .product(name: "NIOCore", package: "swift-nio"),
                .product(name: "NIOPosix", package: "swift-nio"), .product(name: "NIOSSL", package: "swift-nio-ssl"),
            ],
            swiftSettings: rules),
        .testTarget(
            name: "AdminTests",
            dependencies: [
                "Admin", "Model", "Telemetry", .product(name: "Logging", package: "swift-log"),
                .product(name: "NIOCore", package: "swift-nio"), .product(name: "NIOPosix", package: "swift-nio"),
            ],
            swiftSettings: rules),
        .testTarget(name: "KubernetesAPITests", dependencies: ["KubernetesAPI"], swiftSettings: rules),
        .testTarget(
            name: "KubernetesClientTests",
            dependencies: [
                "Admission", "ClusterTesting", "KubernetesAPI", "KubernetesClient",
                .product(name: "Logging", package: "swift-log"),
                .product(name: "NIOSSL", package: "swift-nio-ssl"),
            ],
            swiftSettings: rules),
        .testTarget(
            name: "ControllerTests",
            dependencies: [
                "ClusterTesting", "Controller", "IngressTranslation", "KubernetesAPI", "KubernetesClient", "Model",
                .product(name: "Logging", package: "swift-log"),
            ],
            swiftSettings: rules),
        .testTarget(
            name: "ManifestsTests", dependencies: ["KubernetesAPI", "Manifests", "Model"], swiftSettings: rules),
        .testTarget(
            name: "IngressTranslationTests",
            dependencies: [
                "Controller", "IngressTranslation", "KubernetesAPI", "Manifests", "Middlewares", "Model",
                "MoongateTesting", "Proxy", "TLSEngine",
            ],
            swiftSettings: rules),
        .testTarget(name: "ModelTests", dependencies: ["Model"], swiftSettings: rules),
        .testTarget(
            name: "moongateTests",
            dependencies: [
                "ClusterTesting", "HTTPWire", "IngressTranslation", "KubernetesClient", "Manifests", "Middlewares",
                "Model", "Proxy", "Scripting", "TLSEngine", "moongate",
                .product(name: "ArgumentParser", package: "swift-argument-parser"),
                .product(name: "Configuration", package: "swift-configuration"),
                .product(name: "NIOCore", package: "swift-nio"),
            ],
            swiftSettings: rules),
        .testTarget(
            name: "ClusterScenarioTests",
            dependencies: [
                "Admission", "ClusterTesting", "KubernetesAPI", "KubernetesClient", "MoongateTesting", "Reactor",
                "moongate",
                .product(name: "Logging", package: "swift-log"),
                .product(name: "NIOSSL", package: "swift-nio-ssl"),
            ],
            swiftSettings: rules),
        .testTarget(name: "ScenarioTests", dependencies: ["MoongateTesting", "moongate"], swiftSettings: rules),
    ]
)
