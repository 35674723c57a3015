local t = moongate.test

local function load(edit)
  local config = {
    experiment = "checkout",
    variants = { a = { weight = 50 }, b = { weight = 25, backend = "b:80" }, c = { weight = 25, backend = "c:80" } },
  }
  for k, v in pairs(edit or {}) do config[k] = v end
  return t.load("init.lua", { config = config })
end

t.case("three variants get their shares", function()
  local s = load()
  local d = t.distribution(10000, function(i)
    return s:run({ cookies = { uid = "u" .. i } }).tags.variant
  end)
  t.ratio(d, { a = 50, b = 25, c = 25 }, { p = 0.001 })
end)

t.case("a user stays, and the backend goes with the variant", function()
  local s, backend = load(), { b = "b:80", c = "c:80" }
  for i = 1, 300 do
    local r = s:run { cookies = { uid = "u" .. i } }
    t.eq(r.upstream, backend[r.tags.variant])
    t.eq(s:run({ cookies = { uid = "u" .. i } }).tags.variant, r.tags.variant)
  end
end)

t.case("the response says which variant it was", function()
  local r = load():run { cookies = { uid = "u1" } }
  t.eq(r.headers["x-experiment"], "checkout=" .. r.tags.variant)
  t.eq(r.headers["vary"], "cookie")
end)

t.case("a header stands in for the cookie", function()
  local s = load()
  t.eq(s:run({ headers = { ["X-User-Id"] = "u9" } }).tags.variant, s:run({ cookies = { uid = "u9" } }).tags.variant)
end)

t.case("nobody known, nothing assigned", function()
  local r = load():run { path = "/" }
  t.eq(r.tags.experiment, "checkout=none")
  t.eq(r.tags.variant, nil)
  t.eq(r.headers["x-experiment"], nil)
end)

t.case("two experiments of one layer share no user", function()
  local one = load { layer = "shop", slots = "0-499" }
  local two = load { experiment = "search", layer = "shop", slots = "500-999" }
  for i = 1, 1000 do
    local both = { cookies = { uid = "u" .. i } }
    local a, b = one:run(both).tags.variant, two:run(both).tags.variant
    t.eq((a ~= nil) ~= (b ~= nil), true)
  end
end)

t.case("variants that nobody can get are refused before they serve", function()
  for _, variants in ipairs { {}, { a = { weight = 0 }, b = { weight = 0 } } } do
    t.fails(function() load { variants = variants } end, "a weight above 0")
  end
end)
