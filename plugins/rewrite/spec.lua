local t = moongate.test

t.case("groups move into the path", function()
  local s = t.load("init.lua", { config = { pattern = "^/api(/.*)?$", to = "$1" } })
  t.eq(s:run({ path = "/api/orders/7" }).path, "/orders/7")
  t.eq(s:run({ path = "/api" }).path, "/")
  t.eq(s:run({ path = "/apis" }).path, "/apis")
end)

t.case("named groups move into path and query", function()
  local s = t.load("init.lua", { config = {
    pattern = "^/v(?<major>[0-9]+)(?<rest>/.*)$", to = "${rest}", query = { version = "${major}" },
  } })
  local r = s:run { path = "/v2/orders/7" }
  t.eq(r.path, "/orders/7")
  t.eq(r.query, "version=2")
end)

t.case("the upstream is told what was cut off", function()
  local s = t.load("init.lua", { config = { pattern = "^/shop(/.*)$", to = "$1", prefix_header = true } })
  t.eq(s:run({ path = "/shop/cart" }).request_headers["x-forwarded-prefix"], "/shop")
end)
