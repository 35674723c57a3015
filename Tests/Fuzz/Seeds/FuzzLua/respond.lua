local kept
return {
  rewrite = function(req) req.path = "/a/./b/../c" req.query:set("q", "1 2") kept = req end,
  access = function(req, ctx) if req.headers:get("x-none") then return moongate.respond(403, "no") end ctx.state.r = pcall(function() return kept.path end) end,
  header_filter = function(req, res) res.headers:append("vary", "cookie") res.cookies:set("a", "b", { path = "/", max_age = 10 }) return moongate.respond(404, { headers = { ["x-y"] = "z" } }) end,
}
