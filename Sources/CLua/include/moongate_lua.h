#ifndef MOONGATE_LUA_H
#define MOONGATE_LUA_H
#include <lua.h>
#include <lauxlib.h>
#include <lualib.h>
#endif
