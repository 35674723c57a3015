local t = moongate.test

local function load(config)
  config.canary = config.canary or "c:80"
  return t.load("init.lua", { config = config })
end

t.case("the override cookie forces a side", function()
  local s = load { percent = 50 }
  t.eq(s:run({ cookies = { canary = "always" } }).upstream, "c:80")
  t.eq(s:run({ cookies = { canary = "always" } }).tags.variant, "canary")
  t.eq(s:run({ cookies = { canary = "never" } }).upstream, nil)
  t.eq(s:run({ cookies = { canary = "never" } }).tags.variant, "stable")
end)

t.case("no share sends nobody, the whole share everybody", function()
  local none, all = load { percent = 0 }, load { percent = 100 }
  for i = 1, 200 do
    t.eq(none:run({ cookies = { mg_id = "u" .. i } }).upstream, nil)
    t.eq(all:run({ cookies = { mg_id = "u" .. i } }).upstream, "c:80")
  end
end)

t.case("a visitor stays where they are", function()
  local s = load { percent = 30 }
  for i = 1, 200 do
    local first = s:run({ cookies = { mg_id = "u" .. i } }).tags.variant
    t.eq(s:run({ cookies = { mg_id = "u" .. i } }).tags.variant, first)
  end
end)

t.case("the split is fair", function()
  local s = load { percent = 30 }
  local d = t.distribution(10000, function(i)
    return s:run({ cookies = { mg_id = "u" .. i } }).tags.variant
  end)
  t.ratio(d, { canary = 30, stable = 70 }, { p = 0.001 })
end)

t.case("raising the share moves nobody back", function()
  local on = {}
  for _, percent in ipairs { 1, 5, 10, 20, 50, 80, 100 } do
    local s = load { percent = percent }
    for i = 1, 500 do
      local variant = s:run({ cookies = { mg_id = "u" .. i } }).tags.variant
      if on[i] then t.eq(variant, "canary") end
      on[i] = on[i] or variant == "canary"
    end
  end
end)

t.case("a new visitor gets a cookie that says who they are", function()
  local r = load({ percent = 30 }):run { path = "/" }
  local cookie = r.headers["set-cookie"]
  t.eq(cookie:match("^mg_id=") ~= nil, true)
  t.eq(cookie:find("HttpOnly", 1, true) ~= nil, true)
  t.eq(cookie:find("canary", 1, true), nil)
end)

t.case("a known visitor gets none", function()
  t.eq(load({ percent = 30 }):run({ cookies = { mg_id = "u1" } }).headers["set-cookie"], nil)
end)
