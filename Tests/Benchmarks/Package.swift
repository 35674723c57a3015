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
        .target(name: "Model", swiftSettings: hot),
        .target(name: "Routing", dependencies: ["Model"], swiftSettings: hot),
        .executableTarget(
            name: "RouteMatch", dependencies: ["Model", "Routing"], path: "RouteMatch", swiftSettings: rules),
    ]
)
