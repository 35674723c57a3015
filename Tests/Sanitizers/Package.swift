// swift-tools-version: 6.2
// The rooms that hold raw memory, and what they import, without any package from elsewhere: a second configuration
// of the whole would cost CI minutes. The folders are links to the real ones.
import PackageDescription

let rules: [SwiftSetting] = [
    .swiftLanguageMode(.v6),
    .enableUpcomingFeature("InternalImportsByDefault"),
    .enableUpcomingFeature("ExistentialAny"),
    .enableUpcomingFeature("MemberImportVisibility"),
    .enableExperimentalFeature("Lifetimes"),
    .strictMemorySafety(),
]

let package = Package(
    name: "moongate-sanitizers",
    targets: [
        .systemLibrary(name: "CLua54", pkgConfig: "lua5.4"),
        .systemLibrary(name: "CPCRE2", pkgConfig: "libpcre2-8"),
        .systemLibrary(name: "COpenSSL", pkgConfig: "openssl"),
        .systemLibrary(name: "CNGHTTP2", pkgConfig: "libnghttp2"),
        .systemLibrary(name: "CZlib", pkgConfig: "zlib"),
        .systemLibrary(name: "CBrotli", pkgConfig: "libbrotlienc"),
        .systemLibrary(name: "CZstd", pkgConfig: "libzstd"),
        .systemLibrary(name: "CLinux"),
        // Undefined behaviour in C is a trap: no runtime to link, and nothing that a test could overlook.
        .target(
            name: "CLua", dependencies: ["CLua54"],
            cSettings: [
                .unsafeFlags(["-std=gnu11", "-O1", "-fsanitize=undefined", "-fsanitize-trap=undefined"])
            ]),
        .target(
            name: "CTLS", dependencies: ["COpenSSL"],
            cSettings: [
                .unsafeFlags(["-std=gnu11", "-O1", "-fsanitize=undefined", "-fsanitize-trap=undefined"])
            ]),
        .target(name: "Model", swiftSettings: rules),
        .target(name: "HTTPWire", dependencies: ["Model"], swiftSettings: rules),
        .target(name: "Reactor", dependencies: ["CLinux"], swiftSettings: rules),
        .target(name: "HTTP2Engine", dependencies: ["CNGHTTP2", "Model"], swiftSettings: rules),
        .target(
            name: "CompressionTesting", dependencies: ["CBrotli", "CZlib", "CZstd", "Model"], swiftSettings: rules),
        .target(name: "HTTP2Testing", dependencies: ["CNGHTTP2"], swiftSettings: rules),
        .target(name: "Scripting", dependencies: ["CLua", "CPCRE2", "COpenSSL", "Model"], swiftSettings: rules),
        .target(name: "Routing", dependencies: ["Model"], swiftSettings: rules),
        .target(name: "Upstreams", dependencies: ["Model"], swiftSettings: rules),
        .target(name: "Telemetry", dependencies: ["Model"], swiftSettings: rules),
        .target(name: "Middlewares", dependencies: ["HTTPWire", "Model", "Scripting"], swiftSettings: rules),
        .target(name: "TLSEngine", dependencies: ["CTLS", "Model"], swiftSettings: rules),
        .target(
            name: "Compression", dependencies: ["CBrotli", "CZlib", "CZstd", "Model"], swiftSettings: rules),
        .target(
            name: "Proxy",
            dependencies: [
                "Compression", "HTTP2Engine", "HTTPWire", "Middlewares", "Model", "Reactor", "Routing", "TLSEngine",
                "Telemetry",
                "Upstreams",
            ],
            swiftSettings: rules),
        .testTarget(name: "HTTPWireTests", dependencies: ["HTTPWire", "Model"], swiftSettings: rules),
        .testTarget(name: "ReactorTests", dependencies: ["Reactor"], swiftSettings: rules),
        .testTarget(name: "TLSEngineTests", dependencies: ["Model", "TLSEngine"], swiftSettings: rules),
        .testTarget(
            name: "HTTP2EngineTests", dependencies: ["HTTP2Engine", "HTTP2Testing", "Model"], swiftSettings: rules),
        .testTarget(
            name: "CompressionTests", dependencies: ["Compression", "CompressionTesting", "Model"],
            swiftSettings: rules),
        .testTarget(name: "ScriptingTests", dependencies: ["Model", "Scripting"], swiftSettings: rules),
        .testTarget(name: "UpstreamsTests", dependencies: ["Model", "Upstreams"], swiftSettings: rules),
        .testTarget(
            name: "MiddlewaresTests", dependencies: ["HTTPWire", "Middlewares", "Model", "Scripting"],
            swiftSettings: rules),
        .testTarget(
            name: "ProxyTests",
            dependencies: [
                "Compression", "CompressionTesting", "HTTP2Testing", "HTTPWire", "Middlewares", "Model", "Proxy",
                "Reactor", "Routing", "TLSEngine",
                "Telemetry",
                "Upstreams",
            ],
            swiftSettings: rules),
    ]
)
