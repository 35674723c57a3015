// Our replacements of string and table functions against the distribution's own, on generated inputs: equal results and
// equal messages. The stock functions stand under `stock` in the VM of these tests only.

import Model
import Testing

@testable import Scripting

@Suite struct VMPatternTests {
    /// Runs Lua code that compares, and records the first difference.
    private func compare(_ body: String, _ place: SourceLocation = #_sourceLocation) throws {
        let vm = try Sample.vm(
            """
            local seed
            local function random(n) seed = (seed * 1103515245 + 12345) % 2147483648 return (seed >> 8) % n + 1 end
            local function pick(list) return list[random(#list)] end
            local function show(...)
              local t = table.pack(...)
              for i = 1, t.n do
                local v = t[i]
                if type(v) == "table" then
                  local u = {}
                  for j = 1, #v do u[j] = tostring(v[j]) end
                  v = "{" .. table.concat(u, ",") .. "}"
                end
                t[i] = type(v) == "string" and ("%q"):format(v):gsub("%z", "0") or type(v) .. ":" .. tostring(v)
              end
              return table.concat(t, "|", 1, t.n)
            end
            local function same(name, ours, theirs, ...)
              local a, b = show(pcall(ours, ...)), show(pcall(theirs, ...))
              if a ~= b then error(name .. "(" .. show(...) .. ")\\n  ours   " .. a .. "\\n  theirs " .. b, 0) end
            end
            return { route = function(req, ctx)
              seed = ctx.config.seed
              \(body)
            end }
            """, limits: Sample.limits(milliseconds: 20_000), config: [("seed", .integer(4711))], stock: true)
        switch Sample.run(of: vm) {
        case .next: return
        case .failed(let failure): Issue.record("\(failure.message)", sourceLocation: place)
        default: Issue.record("not ended", sourceLocation: place)
        }
    }

    private static let generator = """
        local function text()
          local t = {}
          for i = 1, random(14) - 1 do t[i] = pick { "a", "b", "a", "A", "1", " ", "(", ")", ".", "%", "-", "\\0", "\\xe9", "_", "\\n", "]" } end
          return table.concat(t)
        end
        local function class() return "%" .. pick { "a", "c", "d", "g", "l", "p", "s", "u", "w", "x", "A", "D", "L", "S", "W", "X", "P", "C", "G", "U", ".", "%", "]", "z" } end
        local function set()
          local t = { "[" }
          if random(3) == 1 then t[2] = "^" end
          for i = 1, random(4) do t[#t + 1] = pick { "a", "b", "]", "-", "a-z", "0-9", "%a", "%]", "%-", "^", "%d", "z-a", ".", "\\0", "%" } end
          t[#t + 1] = random(12) == 1 and "" or "]"
          return table.concat(t)
        end
        local function item()
          local r = random(10)
          if r <= 4 then return pick { "a", "b", "1", " ", ".", "A", "\\0" } end
          if r <= 6 then return class() end
          if r <= 8 then return set() end
          return "."
        end
        local function pattern()
          local t = {}
          if random(5) == 1 then t[1] = "^" end
          for i = 1, random(5) do
            local r = random(16)
            if r <= 9 then t[#t + 1] = item() .. pick { "", "", "", "*", "+", "-", "?" }
            elseif r == 10 then t[#t + 1] = "(" .. item() .. pick { "", "*", "-" } .. ")"
            elseif r == 11 then t[#t + 1] = "()"
            elseif r == 12 then t[#t + 1] = "%b" .. pick { "()", "aa", "ab", "(" }
            elseif r == 13 then t[#t + 1] = "%f" .. set()
            elseif r == 14 then t[#t + 1] = "%" .. pick { "1", "2", "0", "9" }
            elseif r == 15 then t[#t + 1] = pick { "(", ")", "%", "$", "^", "*" }
            else t[#t + 1] = "(" .. item() .. "(" .. item() .. "*)" .. ")" end
          end
          if random(5) == 1 then t[#t + 1] = "$" end
          return table.concat(t)
        end
        local function position() return pick { 1, 2, 0, -1, -3, 5, 100, -100, math.mininteger, math.maxinteger } end

        """

    @Test func findAndMatch() throws {
        try compare(
            Self.generator + """
                for i = 1, 60000 do
                  local s, p = text(), pattern()
                  same("find", string.find, stock.string.find, s, p)
                  same("match", string.match, stock.string.match, s, p)
                  if i % 4 == 0 then
                    local at = position()
                    same("find", string.find, stock.string.find, s, p, at, random(2) == 1)
                    same("match", string.match, stock.string.match, s, p, at)
                  end
                end
                """)
    }

    @Test func gmatch() throws {
        try compare(
            Self.generator + """
                local function all(gmatch)
                  return function(...)
                    local t = {}
                    for a, b, c in gmatch(...) do t[#t + 1] = show(a, b, c) end
                    return t
                  end
                end
                local ours, theirs = all(string.gmatch), all(stock.string.gmatch)
                for i = 1, 30000 do
                  same("gmatch", ours, theirs, text(), pattern())
                  if i % 4 == 0 then same("gmatch", ours, theirs, text(), pattern(), position()) end
                end
                """)
    }

    @Test func gsub() throws {
        try compare(
            Self.generator + """
                local replacements = { "", "x", "%0", "%1", "%2", "<%0>", "%%", "%", "%a", "%1%1", 7, 1.5,
                  function(a, b) return b or a end, function() return nil end, function() return false end,
                  function() return {} end, function() return 3 end, { a = "A", ["1"] = 1, b = false }, true, "a\\0b" }
                for i = 1, 60000 do
                  local r = replacements[random(#replacements)]
                  if i % 3 == 0 then same("gsub", string.gsub, stock.string.gsub, text(), pattern(), r, random(4) - 2)
                  else same("gsub", string.gsub, stock.string.gsub, text(), pattern(), r) end
                end
                """)
    }

    @Test func oneOfEachKind() throws {
        // What the generator meets rarely.
        try compare(
            """
            local s, S = string, stock.string
            for _, p in ipairs { "[]]", "[^]]", "[]-a]", "[a-]", "[-a]", "[%a-z]", "[a%-z]", "[%]", "[", "[^", "[]", "[^]", "[a", "%",
                "(", ")", "(()", "%b", "%bx", "%f", "%fa", "%1", "(%1)", "(a)%1", "()%1", "^^a", "a$b", "$", "^", "^$", "a$$", "%g+",
                ("(a)"):rep(32), ("(a)"):rep(33), "a**", "a*?", "[%a", "[a-%]", "[a-%%]", "\\0+", "[\\0-\\31]", "%z", ".-b", "(.-)(b)(.*)" } do
              for _, t in ipairs { "", "a", "aab", "]", "-", "a]b-c^", "%", "^a", "a$b", "$", "\\0\\0", ("a"):rep(40), "x(y(z))w" } do
                same("find", s.find, S.find, t, p)
                same("match", s.match, S.match, t, p, 2)
                same("gsub", s.gsub, S.gsub, t, p, "<%0>")
              end
            end
            same("find", s.find, S.find) same("find", s.find, S.find, "a") same("find", s.find, S.find, {}, "a")
            same("find", s.find, S.find, 121, 2) same("gsub", s.gsub, S.gsub, "a", "a") same("gsub", s.gsub, S.gsub, "a", "a", true)
            same("gmatch", s.gmatch, S.gmatch, "a") same("match", s.match, S.match, "a", "a", "x")
            same("gsub", s.gsub, S.gsub, ("a"):rep(3000), "a", "bb") same("gsub", s.gsub, S.gsub, "abc", "%w", "%0%0", 2)
            """)
    }

    @Test func otherStringFunctions() throws {
        try compare(
            Self.generator + """
                local formats = { "%d", "%5d", "%-5d|", "%05.1f", "%g", "%s", "%10s", "%-10s|", "%.2s", "%q", "%x", "%X", "%o", "%c", "%i", "%u",
                  "%e", "%a", "%%", "%", "%y", "%s %s", "%5.3s", "%+d", "% d", "%#x", "%123d", "%.123f", "%-", "%s%%%d", "%1000d" }
                local values = { 1, -1, 0, 3.25, 1e300, "text", "", "1", "0x10", true, nil, math.huge, 255, "a\\0b", 12345678901 }
                for i = 1, 20000 do
                  same("format", string.format, stock.string.format, formats[random(#formats)], values[random(15)], values[random(15)])
                  same("rep", string.rep, stock.string.rep, text(), random(8) - 3, pick { "", ",", "ab" })
                  same("byte", string.byte, stock.string.byte, text(), position(), position())
                  same("byte", string.byte, stock.string.byte, text(), position())
                  same("sub", string.sub, stock.string.sub, text(), position(), position())
                  same("char", string.char, stock.string.char, random(300) - 20, random(256) - 1)
                  same("upper", string.upper, stock.string.upper, text())
                  same("reverse", string.reverse, stock.string.reverse, text())
                  same("len", string.len, stock.string.len, text())
                end
                same("char", string.char, stock.string.char) same("byte", string.byte, stock.string.byte)
                same("rep", string.rep, stock.string.rep, "x") same("rep", string.rep, stock.string.rep, "", 1e8, "")
                same("format", string.format, stock.string.format) same("format", string.format, stock.string.format, "%d", "x")
                """)
    }

    @Test func tableFunctions() throws {
        try compare(
            """
            local function list(n, limit) local t = {} for i = 1, n do t[i] = random(limit) end return t end
            local function copy(t) return table.move(t, 1, #t, 1, {}) end
            local function both(name, t, ...)
              local a, b = copy(t), copy(t)
              -- Which argument a message numbers differs between releases of Lua.
              local x, y = show(pcall(table[name], a, ...)), show(pcall(stock.table[name], b, ...))
              x, y = x:gsub("argument #%d", "argument"), y:gsub("argument #%d", "argument")
              if x ~= y or show(a) ~= show(b) then
                error(name .. " " .. show(t, ...) .. "\\n  ours   " .. x .. show(a) .. "\\n  theirs " .. y .. show(b), 0)
              end
            end
            for i = 1, 6000 do
              local t = list(random(40) - 1, 20)
              both("sort", t)
              both("sort", t, function(a, b) return a > b end)
              both("insert", t, random(9)) both("insert", t, random(45) - 2, 99) both("remove", t) both("remove", t, random(45) - 2)
              both("concat", t, ",") both("concat", t, "", random(10) - 2, random(42)) both("unpack", t) both("unpack", t, random(5), random(9))
              local a, b = copy(t), copy(t)
              local f, e, at = random(12) - 4, random(20) - 4, random(20) - 4
              table.move(a, f, e, at) stock.table.move(b, f, e, at)
              if show(a) ~= show(b) then error("move " .. show(t, f, e, at) .. show(a) .. show(b), 0) end
              local p, q = table.pack(table.unpack(t)), stock.table.pack(table.unpack(t))
              if show(p, p.n) ~= show(q, q.n) then error("pack", 0) end
            end
            both("insert", {}) both("insert", {}, 1, 2, 3) both("concat", { {} }) both("concat", { 1, 2.5, "x" }, 0)
            both("sort", { 1, "x" }) both("sort", { {}, {} }) both("remove", {}, 0) both("remove", {}, 1) both("remove", {}, 2)
            both("unpack", {}, 1, 1e8) both("move", {}, 1, math.maxinteger, 2) both("move", {}, -1, math.maxinteger, 2)
            local words = {}
            for i = 1, 3000 do words[i] = "w" .. random(100000) end
            both("sort", words)
            local proxy = setmetatable({}, { __len = function() return 3 end, __index = function(_, i) return i * 10 end })
            if table.concat(proxy, ",") ~= stock.table.concat(proxy, ",") then error("proxy", 0) end
            """)
    }

    /// The comparator's rule is kept: it is asked whether its first argument comes before its second.
    @Test func sortIsStable() throws {
        #expect(
            try Sample.value(
                """
                local t = {}
                for i = 1, 200 do t[i] = { key = i % 3, place = i } end
                table.sort(t, function(a, b) return a.key < b.key end)
                for i = 2, #t do
                  if t[i - 1].key > t[i].key or t[i - 1].key == t[i].key and t[i - 1].place > t[i].place then return i end
                end
                return "stable"
                """) == "stable")
    }
}
