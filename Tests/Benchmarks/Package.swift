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

let package = Package(
    name: "moongate-benchmarks",
    targets: [
        .target(name: "Model", swiftSettings: rules),
        .target(name: "Routing", dependencies: ["Model"], swiftSettings: rules),
        .executableTarget(
            name: "RouteMatch", dependencies: ["Model", "Routing"], path: "RouteMatch", swiftSettings: rules),
    ]
)
