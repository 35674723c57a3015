// swift-tools-version: 6.2
// Measurements of single rooms. A package of its own, so that nobody who builds the program builds them; the rooms are
// links to the real ones.
import PackageDescription

let rules: [SwiftSetting] = [
    .swiftLanguageMode(.v6),
    .enableUpcomingFeature("InternalImportsByDefault"),
    .enableUpcomingFeature("ExistentialAny"),
    .enableUpcomingFeature("MemberImportVisibility"),
    .enableExperimentalFeature("Lifetimes"),
    .strictMemorySafety(),
]

/// As the program itself is built.
let hot: [SwiftSetting] = rules + [.unsafeFlags(["-enforce-exclusivity=unchecked"])]

let package = Package(
    name: "moongate-benchmarks",
    targets: [
        .systemLibrary(name: "CLua54", pkgConfig: "lua5.4"),
        .systemLibrary(name: "CPCRE2", pkgConfig: "libpcre2-8"),
        .systemLibrary(name: "COpenSSL", pkgConfig: "openssl"),
        .target(name: "CLua", dependencies: ["CLua54"], cSettings: [.unsafeFlags(["-std=gnu11", "-O2"])]),
        .target(name: "Model", swiftSettings: hot),
        .target(name: "HTTPWire", dependencies: ["Model"], swiftSettings: hot),
        .target(name: "Scripting", dependencies: ["CLua", "CPCRE2", "COpenSSL", "Model"], swiftSettings: hot),
        .target(name: "Middlewares", dependencies: ["HTTPWire", "Model", "Scripting"], swiftSettings: hot),
        .target(name: "Routing", dependencies: ["Model"], swiftSettings: hot),
        .executableTarget(
            name: "RouteMatch", dependencies: ["Model", "Routing"], path: "RouteMatch", swiftSettings: rules),
        .executableTarget(
            name: "ScriptCost", dependencies: ["Middlewares", "Model", "Scripting"], path: "ScriptCost",
            swiftSettings: rules),
    ]
)
