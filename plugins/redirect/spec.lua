local t = moongate.test

t.case("an old path moves for good, and keeps its query", function()
  local s = t.load("init.lua", { config = { moved = { ["/old"] = "/new" } } })
  local r = s:run { path = "/old", query = "a=1" }
  t.eq(r.status, 308)
  t.eq(r.headers["location"], "/new?a=1")
  t.eq(s:run({ path = "/older" }).status, nil)
end)

t.case("a pattern moves a whole tree", function()
  local s = t.load("init.lua", { config = {
    pattern = "^/blog/(?<year>[0-9]{4})/(.+)$", to = "https://blog.example/${year}/$2", status = 301, keep_query = false,
  } })
  local r = s:run { path = "/blog/2020/hello", query = "a=1" }
  t.eq(r.status, 301)
  t.eq(r.headers["location"], "https://blog.example/2020/hello")
end)

t.case("a pattern without a target is refused before it serves", function()
  t.fails(function() t.load("init.lua", { config = { pattern = "^/x" } }) end, "pattern and to belong together")
end)

t.case("a redirect of nothing is refused before it serves", function()
  t.fails(function() t.load("init.lua", { config = {} }) end, "nothing to redirect")
end)
