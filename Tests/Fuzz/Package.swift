// swift-tools-version: 6.2
// Fuzz targets: a package of its own, so that nobody who builds the program builds them; the rooms are links to the real
// ones. Each target is an executable `FuzzNAME` of a seed corpus, a dictionary and a property; `run` builds and runs all.
import PackageDescription

let rules: [SwiftSetting] = [
    .swiftLanguageMode(.v6),
    .enableUpcomingFeature("InternalImportsByDefault"),
    .enableUpcomingFeature("ExistentialAny"),
    .enableUpcomingFeature("MemberImportVisibility"),
    .enableExperimentalFeature("Lifetimes"),
    .strictMemorySafety(),
]

/// A room of the program, compiled into this package.
func room(_ name: String, _ dependencies: [Target.Dependency] = []) -> Target {
    .target(name: name, dependencies: dependencies, path: "Rooms/\(name)", swiftSettings: rules)
}

let package = Package(
    name: "moongate-fuzz",
    platforms: [.macOS(.v15)],
    dependencies: [.package(url: "https://github.com/jpsim/Yams", from: "6.2.2")],
    targets: [
        room("Model"),
        room("HTTPWire", ["Model"]),
        room("KubernetesAPI", [.product(name: "Yams", package: "Yams")]),
        room("Manifests", ["KubernetesAPI", "Model"]),
        room("IngressTranslation", ["KubernetesAPI", "Model"]),
        .target(name: "FuzzKit", swiftSettings: rules),
        .executableTarget(name: "FuzzHead", dependencies: ["FuzzKit", "HTTPWire", "Model"], swiftSettings: rules),
        .executableTarget(name: "FuzzChunk", dependencies: ["FuzzKit", "HTTPWire", "Model"], swiftSettings: rules),
        .executableTarget(
            name: "FuzzManifests",
            dependencies: ["FuzzKit", "IngressTranslation", "KubernetesAPI", "Manifests", "Model"],
            swiftSettings: rules),
    ]
)
