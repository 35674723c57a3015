local t = moongate.test
local canary = { canary = "web-canary:80" }

t.case("the header sends to the canary", function()
  local r = t.load("init.lua", { config = canary }):run { headers = { ["X-Canary"] = "always" } }
  t.eq(r.upstream, "web-canary:80")
  t.eq(r.tags.variant, "canary")
end)

t.case("never, another value and no header stay", function()
  local s = t.load("init.lua", { config = canary })
  for _, headers in ipairs { { ["X-Canary"] = "never" }, { ["X-Canary"] = "yes" }, {} } do
    local r = s:run { headers = headers }
    t.eq(r.upstream, nil)
    t.eq(r.tags.variant, nil)
  end
end)

t.case("a value of one's own", function()
  local s = t.load("init.lua", { config = { canary = "c:80", header = "x-team", value = "blue" } })
  t.eq(s:run({ headers = { ["X-Team"] = "blue" } }).upstream, "c:80")
  t.eq(s:run({ headers = { ["X-Team"] = "always" } }).upstream, nil)
end)

t.case("a value of one's own does not make never mean yes", function()
  local s = t.load("init.lua", { config = { canary = "c:80", value = "never" } })
  t.eq(s:run({ headers = { ["X-Canary"] = "never" } }).upstream, nil)
end)

t.case("a pattern", function()
  local s = t.load("init.lua", { config = { canary = "c:80", header = "user-agent", pattern = "(?i)firefox/1[0-9]{2}" } })
  t.eq(s:run({ headers = { ["User-Agent"] = "Mozilla Firefox/128.0" } }).upstream, "c:80")
  t.eq(s:run({ headers = { ["User-Agent"] = "curl/8" } }).upstream, nil)
end)
