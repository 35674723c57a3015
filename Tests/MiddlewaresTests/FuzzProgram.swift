/// A script that does what the bytes of `P` say, through the whole API: any bytes are a program, so that mutations reach
/// the border instead of the compiler's error messages. Two bytes decide a step: what to do, and on what.
enum FuzzProgram {
    /// `@PROGRAM@` stands for the bytes, as escapes of a Lua string.
    static let template = #"""
        local P = "@PROGRAM@"

        local at = 1
        local function byte()
          local value = P:byte(at) or 0
          at = at + 1
          return value
        end

        -- Every function of the environment and of `moongate`, in the order of their names.
        local functions, seen = {}, {}
        local function collect(place, name)
          local keys = {}
          for key in pairs(place) do if type(key) == "string" then keys[#keys + 1] = key end end
          table.sort(keys)
          for _, key in ipairs(keys) do
            local value = place[key]
            if type(value) == "function" then
              functions[#functions + 1] = value
            elseif type(value) == "table" and not seen[value] and value ~= functions then
              seen[value] = true
              collect(value, name .. "." .. key)
            end
          end
        end
        seen[_G] = true
        collect(_G, "")
        collect(moongate, "moongate")

        local members = {
          "get", "all", "set", "append", "remove", "names", "has", "method", "scheme", "host", "path", "raw_path", "query", "headers",
          "cookies", "client", "id", "version", "unit", "ip", "port", "status", "origin", "body", "state", "shared", "config",
          "upstream", "ingress", "rule", "use", "strict", "timeout", "retries", "hash_key", "tag", "test", "match", "gsub", "contains",
          "inc", "dec", "observe", "__index", "__gc", "__close", "__tostring", "__mode", "__metatable", "x-canary", "set-cookie",
          "content-length", "transfer-encoding", "connection", "host:", "location", "name", "unit", "variants", "a", "b", "", 1, 2,
          "path", "max_age", "domain", "same_site", "secure", "http_only",
        }
        local texts = {
          "", "a", "/", "/a/../b", "/%2e%2e/x", "//x", "/a?b=1", "http://h.test/", "a\r\nx: y", "a\0b", "\255\254", "é", " ", "; a=b",
          "canary:80", "0-999", "cookie:uid", "header:x-canary", "ip", "(a+)+$", "a{1,65535}", "[", "(?R)", "%d+", "%", "%s%d%q%a",
          "<i8", "!16s4z", "10.0.0.0/8", "::1", "Sun, 06 Nov 1994 08:49:37 GMT", "2024-02-30T25:61:61Z", "{\"a\":[1,{\"b\":null}]}",
          "[[[[[[[[", "\"\\ud800\"", "1e999", "aGVsbG8=", "====", "GET", "sha256", "close", "text/html", "main", "%Y-%m-%d",
        }
        local numbers = {
          0, 1, -1, 2, 7, 64, 200, 301, 404, 599, 600, 1000, 65536, 1e9, 2 ^ 31, 2 ^ 53, 0.5, -0.0, 1 / 0, -1 / 0, 0 / 0,
          math.maxinteger, math.mininteger,
        }

        local V = {}
        for i = 0, 15 do V[i] = false end

        local step
        local function run(depth)
          for _ = 1, 1 + byte() % 16 do
            if at > #P then return end
            local value = step(depth)
            if value ~= nil then return value end
          end
        end

        local function callback(depth)
          return function(...)
            V[byte() % 16] = (...)
            return depth < 4 and run(depth + 1) or nil
          end
        end

        local function pick()
          local kind = byte()
          if kind < 96 then return V[kind % 16] end
          if kind < 160 then return texts[kind % #texts + 1] end
          if kind < 200 then return numbers[kind % #numbers + 1] end
          if kind < 230 then return members[byte() % #members + 1] end
          if kind < 236 then return callback(1) end
          if kind < 242 then return texts[byte() % #texts + 1]:rep(byte() * 40) end
          if kind < 248 then return { [members[byte() % #members + 1]] = V[byte() % 16], V[byte() % 16] } end
          if kind < 252 then return kind % 2 == 0 end
          return nil
        end

        local function call(f)
          local count = byte() % 5
          if count == 0 then return f() end
          if count == 1 then return f(pick()) end
          if count == 2 then return f(pick(), pick()) end
          if count == 3 then return f(pick(), pick(), pick()) end
          return f(pick(), pick(), pick(), pick())
        end

        function step(depth)
          local op, slot = byte() % 24, byte() % 16
          if op < 6 then
            V[slot] = call(functions[byte() % #functions + 1])
          elseif op < 11 then
            local object, name = V[byte() % 16], members[byte() % #members + 1]
            local method = object[name]
            if type(method) == "function" then
              V[slot] = call(function(...) return method(object, ...) end)
            else
              V[slot] = method
            end
          elseif op == 11 then
            V[slot] = V[byte() % 16][members[byte() % #members + 1]]
          elseif op < 14 then
            V[slot][members[byte() % #members + 1]] = pick()
          elseif op < 17 then
            V[slot] = pick()
          elseif op == 17 then
            local good, value = pcall(run, depth + 1)
            V[slot] = value
          elseif op == 18 then
            V[slot] = coroutine.wrap(callback(depth))
          elseif op == 19 then
            V[slot] = setmetatable({}, {
              [members[byte() % #members + 1]] = callback(depth), __index = pick(), __tostring = callback(depth), __lt = callback(depth),
              __concat = callback(depth), __eq = callback(depth), __len = callback(depth), __call = callback(depth),
            })
          elseif op == 20 then
            V[slot] = V[byte() % 16] .. V[byte() % 16]
          elseif op == 21 then
            local f = V[slot]
            V[slot] = call(f)
          elseif op == 22 then
            local many = byte()
            if many > 250 then while true do V[slot] = { V[slot] } end end
            for i = 1, many do V[slot] = tostring(V[slot]):rep(2) end
          else
            if byte() % 4 == 0 then error(pick()) end
            return pick()
          end
        end

        -- The objects of the phase in some slots; what earlier phases left in the others: stale handles among it.
        local function phase(first, second, third)
          V[0], V[1], V[2] = first, second, third or false
          V[3], V[4], V[5], V[6] = first.headers, first.cookies, first.query, first.client
          local ctx = third or second
          V[7], V[8], V[9], V[10] = ctx.upstream, ctx.state, ctx.shared, ctx.config
          if third then V[11], V[12] = second.headers, second.cookies end
          return run(0)
        end

        return {
          config = { canary = { type = "backend" }, pattern = { type = "regex", default = "a+b" }, net = { type = "list", of = "cidr" } },
          init = function(conf) V[13] = conf end,
          rewrite = phase,
          access = phase,
          route = phase,
          header_filter = phase,
          log = phase,
        }
        """#
}
