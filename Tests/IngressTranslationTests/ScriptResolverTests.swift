import KubernetesAPI
import Model
import Testing

@testable import IngressTranslation

struct ScriptResolverTests {
    @Test(arguments: [
        ("canary", ScriptReference.configMap(ObjectName(namespace: "n", name: "canary"), key: "main.lua")),
        ("canary:next.lua", .configMap(ObjectName(namespace: "n", name: "canary"), key: "next.lua")),
        ("o/canary", .configMap(ObjectName(namespace: "o", name: "canary"), key: "main.lua")),
        ("o/canary:a_B.lua", .configMap(ObjectName(namespace: "o", name: "canary"), key: "a_B.lua")),
        ("plugin/ab-split", .plugin("ab-split")), ("./a.lua", .file("./a.lua")), ("../x/a.lua", .file("../x/a.lua")),
    ])
    func readsReferences(text: String, reference: ScriptReference) throws {
        #expect(try ScriptReference(text, namespace: "n") == reference)
    }

    @Test(arguments: [
        "", " ", "a b", "A", "a/b/c", "/a", "a/", "a:", "a:b", "a:b:c.lua", "a:../b.lua", "a:b/c.lua", "plugin/",
        "plugin/a:b.lua",
        "./a", "./a.txt", "./a\n.lua", "/etc/passwd", "a\0", "a;b", "\"a\"", "${a}", "*", "./a\\b.lua",
    ])
    func refusesReferences(text: String) {
        #expect(throws: ValueProblem.self) { try ScriptReference(text, namespace: "n") }
    }

    @Test(arguments: [
        ("./a.lua", "web.yaml", "a.lua"), ("./s/a.lua", "web.yaml", "s/a.lua"),
        ("./a.lua", "x/y/web.yaml", "x/y/a.lua"),
        ("../a.lua", "x/web.yaml", "a.lua"), ("./../../a.lua", "x/y/web.yaml", "a.lua"), ("../a.lua", "web.yaml", nil),
        ("./x/../../a.lua", "web.yaml", nil), ("./x/../a.lua", "web.yaml", "a.lua"), (".//a.lua", "web.yaml", "a.lua"),
    ])
    func filesStayInTheFolder(path: String, manifest: String, resolved: String?) {
        #expect(ScriptResolver.resolve(path, from: manifest) == resolved)
    }
}
