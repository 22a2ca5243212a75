-- What the JSON transcoder cannot say about the two documented APIs. No field is named here that is not special:
-- names.lua has the others, from the descriptor.
--
-- A request's body is read as strictly as JSON is defined and written anew in the names of the contract, so that the
-- transcoder cannot understand it otherwise. An answer gets the status, or the envelope, that its document gives it.

local names = dofile("names.lua")

local LARGEST_BODY = 64 * 1024
local NULL = {}

-- gRPC's codes.
local INVALID_ARGUMENT, OUT_OF_RANGE, INTERNAL = 3, 11, 13

-- What the second document answers with 400, whatever its code is elsewhere.
local DOCUMENTED = {
  PHONE_NUMBER_IN_USE = true,
  UPDATE_NOT_ALLOWED = true,
  USER_NOT_FOUND = true,
  USER_NOT_IN_ORGANIZATION = true,
}

-- Ends a request with an answer of ours. No value of a request may be in the message.
local function refuse(message, status, code)
  error({ message = message, status = status or "400", code = code or INVALID_ARGUMENT }, 0)
end

-- A name that a caller sent, if it looks like one: where it does not it may be a value.
local function shown(name, else_shown)
  return #name <= 40 and name:find("^[%a_][%w_.]*$") and name or else_shown
end

local function refuse_field(prefix, name, problem)
  refuse("Invalid fields: " .. prefix .. shown(name, "a field") .. " " .. problem .. ".")
end

local function refuse_parameter(name, problem)
  refuse("Invalid query: " .. shown(name, "a parameter") .. " " .. problem .. ".")
end

local function listed(set)
  local list = {}
  for name in pairs(set) do
    list[#list + 1] = name
  end
  table.sort(list)
  return table.concat(list, ", ")
end

-- Text ------------------------------------------------------------------------------------------------------------

-- What UTF-8 has beyond ASCII. Each begins with bytes of its own, so that each can be looked for by itself.
local SEQUENCES = {
  "[\194-\223][\128-\191]",
  "\224[\160-\191][\128-\191]",
  "[\225-\236\238\239][\128-\191][\128-\191]",
  "\237[\128-\159][\128-\191]",
  "\240[\144-\191][\128-\191][\128-\191]",
  "[\241-\243][\128-\191][\128-\191][\128-\191]",
  "\244[\128-\143][\128-\191][\128-\191]",
}

local function is_utf8(text)
  for _, sequence in ipairs(SEQUENCES) do
    text = text:gsub(sequence, " ")
  end
  return not text:find("[\128-\255]")
end

local function utf8(point)
  local function tail(shift)
    return 0x80 + math.floor(point / 0x40 ^ shift) % 0x40
  end
  if point < 0x80 then
    return string.char(point)
  elseif point < 0x800 then
    return string.char(0xC0 + math.floor(point / 0x40), tail(0))
  elseif point < 0x10000 then
    return string.char(0xE0 + math.floor(point / 0x1000), tail(1), tail(0))
  end
  return string.char(0xF0 + math.floor(point / 0x40000), tail(2), tail(1), tail(0))
end

-- The text of a path's segment or of a query's value; nothing where it is not well formed.
local function percent_decoded(text)
  local decoded = text:gsub("%%(%x%x)", function(hex)
    return string.char(tonumber(hex, 16))
  end)
  local _, escapes = text:gsub("%%%x%x", "")
  local _, signs = text:gsub("%%", "")
  return escapes == signs and is_utf8(decoded) and decoded or nil
end

-- JSON ------------------------------------------------------------------------------------------------------------

local SPACE = "[ \t\r\n]*"
local ESCAPES = { ['"'] = '"', ["\\"] = "\\", ["/"] = "/", b = "\b", f = "\f", n = "\n", r = "\r", t = "\t" }
local LITERALS = { ["true"] = true, ["false"] = false, null = NULL }

local function no_json()
  refuse("The body is not a JSON object in UTF-8.")
end

-- The character that the `\u` before `at` stands for, and where its escape ends.
local function unicode_escape(text, at)
  local point = tonumber(text:match("^%x%x%x%x", at) or no_json(), 16)
  at = at + 4
  if point >= 0xD800 and point < 0xE000 then
    local low = tonumber(text:match("^\\u([dD][c-fC-F]%x%x)", at) or no_json(), 16)
    if point >= 0xDC00 then
      no_json()
    end
    point = 0x10000 + (point - 0xD800) * 0x400 + (low - 0xDC00)
    at = at + 6
  end
  return utf8(point), at
end

-- The string that begins at `at`, and where it ends.
local function read_string(text, at)
  local parts = {}
  at = at + 1
  while true do
    local plain, stop, next_at = text:match('^([^%z\1-\31"\\]*)(["\\])()', at)
    if not plain then
      no_json()
    end
    parts[#parts + 1] = plain
    if stop == '"' then
      return table.concat(parts), next_at
    end
    local escape = text:sub(next_at, next_at)
    if escape == "u" then
      parts[#parts + 1], at = unicode_escape(text, next_at + 1)
    else
      parts[#parts + 1], at = ESCAPES[escape] or no_json(), next_at + 1
    end
  end
end

-- The members of the object that begins at `at`, and where it ends. Numbers and lists, which no field has, and
-- objects deeper than the contract's are refused.
local function read_object(text, at, depth)
  local members = {}
  local closed
  at = text:match("^{" .. SPACE .. "()", at) or no_json()
  if text:sub(at, at) == "}" then
    return members, at + 1
  end
  repeat
    local key, value
    if text:sub(at, at) ~= '"' then
      no_json()
    end
    key, at = read_string(text, at)
    at = text:match("^" .. SPACE .. ":" .. SPACE .. "()", at) or no_json()
    local first = text:sub(at, at)
    if first == '"' then
      value, at = read_string(text, at)
    elseif first == "{" and depth > 0 then
      value, at = read_object(text, at, depth - 1)
    elseif first:find("[%[{%d-]") then
      refuse_field("", key, "is of a wrong type")
    else
      local word = text:match("^%l+", at) or no_json()
      value, at = LITERALS[word], at + #word
      if value == nil then
        no_json()
      end
    end
    if members[key] ~= nil then
      refuse_field("", key, "is there twice")
    end
    members[key] = value
    closed, at = text:match("^" .. SPACE .. "([,}])" .. SPACE .. "()", at)
    if not closed then
      no_json()
    end
  until closed == "}"
  return members, at
end

-- The members of a body.
local function read(text)
  if not is_utf8(text) then
    no_json()
  end
  local members, at = read_object(text, text:match("^" .. SPACE .. "()"), 1)
  if text:find("[^ \t\r\n]", at) then
    no_json()
  end
  return members
end

local SHORT = { ['"'] = '\\"', ["\\"] = "\\\\", ["\b"] = "\\b", ["\f"] = "\\f", ["\n"] = "\\n", ["\r"] = "\\r", ["\t"] = "\\t" }

local function write(value)
  if type(value) == "string" then
    return '"' .. value:gsub('[%z\1-\31"\\]', function(char)
      return SHORT[char] or ("\\u%04x"):format(char:byte())
    end) .. '"'
  elseif type(value) ~= "table" then
    return tostring(value)
  end
  local parts = {}
  for key, member in pairs(value) do
    parts[#parts + 1] = write(key) .. ":" .. write(member)
  end
  return "{" .. table.concat(parts, ",") .. "}"
end

-- Requests --------------------------------------------------------------------------------------------------------

-- The members in the names of the contract, each judged by its type. `null` is absent.
local function understood(members, message, prefix)
  local values, seen = {}, {}
  for key, value in pairs(members) do
    local name = names.aliases[key] or key
    local kind = names.messages[message][name]
    if not kind then
      refuse_field(prefix, key, "is not known")
    elseif seen[name] then
      refuse_field(prefix, key, "is there twice")
    end
    seen[name] = true
    if value == NULL then
      value = nil
    elseif type(kind) == "table" then
      if not kind[value] then
        refuse_field(prefix, key, "must be one of " .. listed(kind))
      end
    elseif kind == "boolean" then
      if type(value) ~= "boolean" then
        refuse_field(prefix, key, "must be true or false")
      end
    elseif kind == "string" or kind == "output" then
      if type(value) ~= "string" then
        refuse_field(prefix, key, "must be a string")
      end
      value = kind == "string" and value or nil
    elseif type(value) ~= "table" then
      refuse_field(prefix, key, "must be an object")
    else
      value = understood(value, kind, key .. ".")
    end
    values[name] = value
  end
  return values
end

-- The parameters of a query, each judged by its type. Only the names of the contract as they stand are known.
local function parameters(query, allowed)
  local values = {}
  for pair in query:gmatch("[^&]+") do
    local key, value = pair:match("^([^=]*)=?(.*)$")
    local name = names.aliases[key] or key
    local kind = allowed[name]
    value = percent_decoded((value:gsub("%+", " ")))
    if not kind then
      refuse_parameter(key, "is not known")
    elseif values[name] and kind ~= "list" then
      refuse_parameter(key, "is there twice")
    elseif not value or kind == "boolean" and value ~= "true" and value ~= "false" then
      refuse_parameter(key, kind == "boolean" and "must be true or false" or "is not well formed")
    end
    values[name] = value
  end
  return values
end

-- The one etag that the header gives as a condition, if it gives any.
local function condition(headers)
  local etag = headers:get("if-match")
  -- An empty etag would be no condition to the service.
  if headers:getNumValues("if-match") > 1 or etag and (etag:find(",") or not etag:find("[!-~]")) then
    refuse("If-Match must have one etag.")
  end
  return etag ~= "*" and etag or nil
end

-- Puts the header's condition where the contract has it.
local function condition_into(profile, etag)
  if etag and profile.etag and profile.etag ~= etag then
    refuse("If-Match and the etag of the body differ.")
  end
  profile.etag = etag or profile.etag
end

-- The path's id is whose profile it is; the body may say it again.
local function drop_id(profile, path)
  local id = path:match("^/profile/([^/]+)$")
  if id and profile.id then
    local decoded = percent_decoded(id) or refuse("The id in the path is not well formed.")
    if decoded:lower() ~= profile.id:lower() then
      refuse("Invalid fields: id is not the path's.")
    end
  end
  profile.id = nil
end

-- A date of birth as the second document shows it is the date.
local function date_of_midnight(dob)
  local date, rest = (dob or ""):match("^(%d%d%d%d%-%d%d%-%d%d)T00:00:00(.*)Z$")
  return date and (rest == "" or rest:find("^%.0+$")) and date or dob
end

-- Whether the service will take this for a request id: it trims more than the space that is looked for here.
local function is_request_id(text)
  return (text or ""):find("[!-~]") ~= nil
end

-- The body for the transcoder, and whether the request may be repeated.
local function request_body(route, headers, path, query, text)
  if not route.message then
    if text ~= "" then
      refuse("This request has no body.")
    end
    return nil, true
  end
  if text == "" then
    refuse("A body is required.")
  end
  local members = read(text)
  local enveloped = route.message ~= "Profile"
  if enveloped and members.action ~= "UPDATE_PROFILE" then
    refuse("Invalid fields: action must be UPDATE_PROFILE.")
  end
  local body = understood(members, route.message, "")
  local profile = body
  if enveloped then
    profile = body.data or refuse("Invalid fields: data is required.")
    profile.dob = date_of_midnight(profile.dob)
  end
  drop_id(profile, path)
  condition_into(profile, condition(headers))
  return write(body), is_request_id(query.requestId or body.requestId)
end

-- Whether the body is said to be JSON in UTF-8, as it stands.
local function is_json(headers)
  local kind = (headers:get("content-type") or "application/json"):lower()
  local charset = kind:match("charset%s*=%s*\"?([^%s;\"]*)") or "utf-8"
  return (kind:find("^application/json%s*$") or kind:find("^application/json%s*;")) and charset == "utf-8"
    and headers:get("content-encoding") == nil
end

-- Keeps a request id that may be shown and logged, by the service's own rule, and remembers it for the answer.
local function keep_tame_request_id(handle)
  local headers = handle:headers()
  local id = headers:get("x-request-id") or ""
  if #id <= 128 and id:find("^[%w%-_.:/=]+$") then
    handle:streamInfo():dynamicMetadata():set("rest", "request_id", id)
  else
    headers:remove("x-request-id")
  end
end

-- The service answers with the id; what Envoy answers has it from here.
local function answer_request_id(handle, headers)
  local known = handle:streamInfo():dynamicMetadata():get("rest")
  if known and known.request_id then
    headers:replace("x-request-id", known.request_id)
  end
end

local function status_body(code, message)
  return '{"code":' .. code .. ',"message":' .. write(message) .. "}"
end

-- Answers with what was refused. What else went wrong is a fault of this file.
local function answer(handle, problem)
  if type(problem) ~= "table" then
    handle:logErr(problem)
    problem = { status = "500", code = INTERNAL, message = "The gateway failed." }
  end
  handle:streamInfo():dynamicMetadata():set("rest", "refused", true)
  handle:respond({ [":status"] = problem.status }, status_body(problem.code, problem.message))
end

function envoy_on_request(handle)
  keep_tame_request_id(handle)
  -- Whatever becomes of it, a request is read to its end: clients of HTTP/2 may lose an answer that comes earlier.
  local body = handle:body()
  local route = names.routes[handle:streamInfo():routeName()]
  if not route then
    return
  end
  local text = body and body:getBytes(0, body:length()) or ""
  local headers = handle:headers()
  local fine, made, repeatable = pcall(function()
    if #text > LARGEST_BODY then
      refuse("The body is larger than 64 KiB.", "413", OUT_OF_RANGE)
    elseif route.message and not is_json(headers) then
      refuse("The body must be application/json in UTF-8 without an encoding.", "415")
    end
    local path, query = headers:get(":path"):match("^([^?]*)%??(.*)$")
    return request_body(route, headers, path, parameters(query, route.query), text)
  end)
  if not fine then
    return answer(handle, made)
  end
  if made then
    headers:replace("content-type", "application/json")
    body:setBytes(made)
  else
    headers:remove("content-type") -- there is no body, and it must not say gRPC
  end
  if repeatable then
    -- The service may have heard of such a request already.
    headers:replace("x-envoy-retry-on", "reset")
    headers:replace("x-envoy-retry-grpc-on", "unavailable")
  end
end

-- Answers ---------------------------------------------------------------------------------------------------------

-- The code, message and reason of an error, as the transcoder and the answers of ours write it.
local function read_status(text)
  local at = text:match('"message":()"')
  return tonumber(text:match('^{"code":(%d+)')), at and read_string(text, at) or "", text:match('"reason":"([A-Z_]+)"')
end

local function envelope(status, text)
  if status == "200" then
    local user = text:gsub('"dob":"(%d%d%d%d%-%d%d%-%d%d)"', '"dob":"%1T00:00:00.000Z"')
    return '{"status":200,"success":true,"message":"Profile updated successfully","data":{"user":' .. user .. "}}"
  end
  local _, message = read_status(text)
  return '{"status":' .. status .. ',"success":false,"message":' .. write(message) .. "}"
end

-- Envoy's own answers to requests that say that they are gRPC are gRPC, which is not spoken here.
local function answer_grpc(handle, enveloped)
  local text = status_body(INVALID_ARGUMENT, "The body must be application/json in UTF-8 without an encoding.")
  handle:body(true):setBytes(enveloped and envelope("415", text) or text)
  local headers = handle:headers()
  headers:replace(":status", "415")
  headers:replace("content-type", "application/json")
  headers:remove("grpc-message")
end

function envoy_on_response(handle)
  local rpc = handle:streamInfo():routeName():match("^%a*")
  local enveloped = rpc == "UpdateProfile"
  local headers = handle:headers()
  answer_request_id(handle, headers)
  local status = headers:get(":status")
  headers:remove("grpc-status")
  if (headers:get("content-type") or ""):find("^application/grpc") then
    return answer_grpc(handle, enveloped)
  end
  if status == "200" and not enveloped then
    -- What was only validated has no etag, for nothing was created.
    if rpc == "CreateProfile" and headers:get("etag") then
      headers:replace(":status", "201")
    end
    return
  end
  local body = handle:body()
  if not body then
    return
  end
  local text = body:getBytes(0, body:length())
  headers = handle:headers()
  if status ~= "200" then
    local code, _, reason = read_status(text)
    if reason == "ETAG_MISMATCH" then
      status = "412"
    elseif code == OUT_OF_RANGE then
      status = "413"
    elseif enveloped and DOCUMENTED[reason] then
      status = "400"
    end
    headers:replace(":status", status)
  end
  if enveloped then
    body:setBytes(envelope(status, text))
    headers:replace("content-type", "application/json")
  end
end
