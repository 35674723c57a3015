local t = setmetatable({}, { __index = function(t, k) error(k) end, __tostring = function() return {} end, __len = function() return -1 end })
return { route = function(req, ctx)
  pcall(ctx.tag, ctx, t, t)
  pcall(req.headers.set, req.headers, "x", t)
  req.headers:set("x-a", { "b", "c" })
  pcall(function() req.path = t end)
  ctx:tag("n", #req.headers:all("accept"))
end }
