// swift-tools-version: 6.2
// Fuzz targets: a package of its own, so that nobody who builds the program builds them; the rooms are links to the real
// ones, and the whole data plane is among them, so that CI has built it as it is released. Each target is an executable
// `FuzzNAME` of a seed corpus, a dictionary and a property; `run` builds and runs all.
import PackageDescription

let rules: [SwiftSetting] = [
    .swiftLanguageMode(.v6),
    .enableUpcomingFeature("InternalImportsByDefault"),
    .enableUpcomingFeature("ExistentialAny"),
    .enableUpcomingFeature("MemberImportVisibility"),
    .enableExperimentalFeature("Lifetimes"),
    .strictMemorySafety(),
]

/// The data plane's, as in the program's package: how accesses are enforced decides, too, what the optimiser refuses.
let hot: [SwiftSetting] = rules + [.unsafeFlags(["-enforce-exclusivity=unchecked"], .when(configuration: .release))]

/// A room of the program, compiled into this package.
func room(_ name: String, _ dependencies: [Target.Dependency] = [], settings: [SwiftSetting] = hot) -> Target {
    .target(name: name, dependencies: dependencies, path: "Rooms/\(name)", swiftSettings: settings)
}

let package = Package(
    name: "moongate-fuzz",
    platforms: [.macOS(.v15)],
    dependencies: [.package(url: "https://github.com/jpsim/Yams", from: "6.2.2")],
    targets: [
        .systemLibrary(name: "CLua54", path: "Rooms/CLua54", pkgConfig: "lua5.4"),
        .systemLibrary(name: "CPCRE2", path: "Rooms/CPCRE2", pkgConfig: "libpcre2-8"),
        .systemLibrary(name: "COpenSSL", path: "Rooms/COpenSSL", pkgConfig: "openssl"),
        .systemLibrary(name: "CNGHTTP2", path: "Rooms/CNGHTTP2", pkgConfig: "libnghttp2"),
        .systemLibrary(name: "CZlib", path: "Rooms/CZlib", pkgConfig: "zlib"),
        .systemLibrary(name: "CBrotli", path: "Rooms/CBrotli", pkgConfig: "libbrotlienc"),
        .systemLibrary(name: "CZstd", path: "Rooms/CZstd", pkgConfig: "libzstd"),
        .systemLibrary(name: "CLinux", path: "Rooms/CLinux"),
        .target(name: "CTLS", dependencies: ["COpenSSL"], path: "Rooms/CTLS"),
        // Undefined behaviour in C is a trap.
        .target(
            name: "CLua", dependencies: ["CLua54"], path: "Rooms/CLua",
            cSettings: [
                .unsafeFlags(["-std=gnu11", "-O2", "-fsanitize=undefined", "-fsanitize-trap=undefined"])
            ]),
        room("Model"),
        room("HTTPWire", ["Model"]),
        room("HTTP2Engine", ["CNGHTTP2", "Model"]),
        room("Scripting", ["CLua", "CPCRE2", "COpenSSL", "Model"]),
        room("Middlewares", ["HTTPWire", "Model", "Scripting"]),
        room("Reactor", ["CLinux"]),
        room("Routing", ["Model"]),
        room("Upstreams", ["Model"]),
        room("Telemetry", ["Model"]),
        room("TLSEngine", ["CTLS", "Model"]),
        room("Compression", ["CBrotli", "CZlib", "CZstd", "Model"]),
        room(
            "Proxy",
            [
                "Compression", "HTTP2Engine", "HTTPWire", "Middlewares", "Model", "Reactor", "Routing", "TLSEngine",
                "Telemetry", "Upstreams",
            ]),
        room("KubernetesAPI", [.product(name: "Yams", package: "Yams")], settings: rules),
        room("Manifests", ["KubernetesAPI", "Model"], settings: rules),
        room("IngressTranslation", ["KubernetesAPI", "Model"], settings: rules),
        .target(name: "FuzzKit", swiftSettings: rules),
        .executableTarget(name: "FuzzHead", dependencies: ["FuzzKit", "HTTPWire", "Model"], swiftSettings: rules),
        .executableTarget(name: "FuzzOpening", dependencies: ["FuzzKit", "HTTPWire", "Model"], swiftSettings: rules),
        .executableTarget(name: "FuzzChunk", dependencies: ["FuzzKit", "HTTPWire", "Model"], swiftSettings: rules),
        .executableTarget(name: "FuzzHTTP2", dependencies: ["FuzzKit", "HTTP2Engine", "Model"], swiftSettings: rules),
        .executableTarget(
            name: "FuzzLua", dependencies: ["FuzzKit", "Middlewares", "Model", "Scripting"], swiftSettings: rules),
        .executableTarget(
            name: "FuzzManifests",
            dependencies: ["FuzzKit", "IngressTranslation", "KubernetesAPI", "Manifests", "Model"],
            swiftSettings: rules),
    ]
)
