-- What the JSON transcoder cannot say about the two documented APIs. No field is named here that is not special:
-- names.lua has the others, from the descriptor.
--
-- A request's body is read as strictly as JSON is defined and written anew in the names of the contract, so that the
-- transcoder cannot understand it otherwise. An answer gets the status, or the envelope, that its document gives it.

local names = dofile("names.lua")

local DEEPEST_BODY = 8
local MOST_VIOLATIONS = 50

-- gRPC's codes.
local INVALID_ARGUMENT, OUT_OF_RANGE, INTERNAL = 3, 11, 13

-- What the second document answers with 400, whatever its code is elsewhere.
local DOCUMENTED = {
  PHONE_NUMBER_IN_USE = true,
  UPDATE_NOT_ALLOWED = true,
  USER_NOT_FOUND = true,
  USER_NOT_IN_ORGANIZATION = true,
}

-- What PATCH cannot clear.
local NEVER_EMPTY = { id = true, etag = true, firstName = true, lastName = true }

-- The second document requires its action, which the contract does not.
names.messages.UpdateProfileRequest.action = { "UPDATE_PROFILE" }

-- An etag that no profile has.
local NO_ETAG = '"none"'

local RPC_TYPE = "type.googleapis.com/google.rpc."
local NO_JSON = "The body must be application/json in UTF-8 without an encoding."

-- Ends a request with an answer of ours, 400 with INVALID_MESSAGE unless `more` says otherwise. No value of a request
-- may be in the message.
local function refuse(message, more)
  local problem = { message = message, reason = "INVALID_MESSAGE", status = "400", code = INVALID_ARGUMENT }
  for key, value in pairs(more or {}) do
    problem[key] = value
  end
  error(problem, 0)
end

-- Ends a request whose fields are wrong, if there are any. The sentence is the service's own form.
local function refuse_violations(violations)
  local parts = {}
  for index, violation in ipairs(violations) do
    parts[index] = violation.field .. " " .. violation.description
  end
  if #parts > 0 then
    local message = "Invalid fields: " .. table.concat(parts, "; ") .. "."
    refuse(message, { reason = "INVALID_FIELDS", violations = violations })
  end
end

-- Notes what is wrong with a field, parameter or header of the request, so that all is told at once.
local function violate(violations, field, reason, description)
  violations[#violations + 1] = { field = field, reason = reason, description = description }
  if #violations == MOST_VIOLATIONS then
    refuse_violations(violations)
  end
end

-- A name that a caller sent, if it looks like one: where it does not it may be a value.
local function shown(name, else_shown)
  return #name <= 40 and name:find("^[%a_][%w_.]*$") and name or else_shown
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
  local tail, room = "", 0x40 -- how many values the leading byte has room for
  if point < 0x80 then
    return string.char(point)
  end
  repeat
    tail = string.char(0x80 + point % 0x40) .. tail
    point, room = math.floor(point / 0x40), room / 2
  until point < room
  return string.char(0x100 - 2 * room + point) .. tail
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

-- What stands for `null`, and for a number, of which no field is one.
local NULL, OTHER = 0, 1
local LITERALS = { ["true"] = true, ["false"] = false, null = NULL }

-- The members of the object that the text is, in their order. A name may be there twice. A list is its `elements`.
local function read(text)
  local at = 1
  local read_value

  local function fail()
    local _, line_breaks = text:sub(1, at - 1):gsub("\n", "")
    refuse("The body is not a JSON object in UTF-8 (near line " .. line_breaks + 1 .. ").")
  end

  -- Goes on behind the pattern, if it is here, and answers its capture.
  local function take(pattern)
    local first, last, capture = text:find("^" .. pattern, at)
    at = last and last + 1 or at
    return capture or first
  end

  local function need(pattern)
    return take(pattern) or fail()
  end

  local function read_unicode_escape()
    local point = tonumber(need("\\u(%x%x%x%x)"), 16)
    if point >= 0xDC00 and point < 0xE000 then
      fail()
    elseif point >= 0xD800 and point < 0xDC00 then
      local low = tonumber(need("\\u([dD][c-fC-F]%x%x)"), 16)
      point = 0x10000 + (point - 0xD800) * 0x400 + (low - 0xDC00)
    end
    return utf8(point)
  end

  local function read_string()
    local parts = {}
    need('"')
    while not take('"' .. SPACE) do
      parts[#parts + 1] = take('([^%z\1-\31"\\]+)') or ESCAPES[take('\\(["\\/bfnrt])')] or read_unicode_escape()
    end
    return table.concat(parts)
  end

  local function read_number()
    take("%-")
    if not take("0") then
      need("[1-9]%d*")
    end
    if take("%.") then
      need("%d+")
    end
    if take("[eE][+-]?") then
      need("%d+")
    end
    take(SPACE)
    return OTHER
  end

  local function read_list(close, read_element)
    local list = {}
    if not take(close .. SPACE) then
      repeat
        list[#list + 1] = read_element()
      until not take("," .. SPACE)
      need(close .. SPACE)
    end
    return list
  end

  function read_value(depth)
    if depth > DEEPEST_BODY then
      refuse("The body is nested too deeply.")
    elseif text:find('^"', at) then
      return read_string()
    elseif take("{" .. SPACE) then
      return read_list("}", function()
        local name = read_string()
        need(":" .. SPACE)
        return { name = name, value = read_value(depth + 1) }
      end)
    elseif take("%[" .. SPACE) then
      return { elements = read_list("%]", function()
        return read_value(depth + 1)
      end) }
    elseif text:find("^[%-%d]", at) then
      return read_number()
    end
    local value = LITERALS[take("(%l+)" .. SPACE)]
    if value == nil then
      fail()
    end
    return value
  end

  take(SPACE)
  if not is_utf8(text) or not text:find("^{", at) then
    fail()
  end
  local members = read_value(1)
  return at > #text and members or fail()
end

local function write(value)
  if type(value) == "string" then
    return '"' .. value:gsub('["\\]', "\\%0"):gsub("[%z\1-\31]", function(char)
      return ("\\u%04x"):format(char:byte())
    end) .. '"'
  elseif type(value) ~= "table" then
    return tostring(value)
  end
  local parts = {}
  if value.elements then
    for index, element in ipairs(value.elements) do
      parts[index] = write(element)
    end
    return "[" .. table.concat(parts, ",") .. "]"
  end
  for key, member in pairs(value) do
    parts[#parts + 1] = write(key) .. ":" .. write(member)
  end
  return "{" .. table.concat(parts, ",") .. "}"
end

-- Requests --------------------------------------------------------------------------------------------------------

-- The kind of the elements, where a kind is a list.
local function element_of(kind)
  return type(kind) == "string" and kind:match("^%[(.*)%]$") or nil
end

-- What a value of this kind must be, if it is not, and the reason of the violation.
local function mistake(name, kind, value)
  if type(kind) == "table" then
    for _, word in ipairs(kind) do
      if word == value then
        return nil
      end
    end
    return "must be " .. table.concat(kind, " or "), "INVALID_" .. name:upper()
  elseif kind == "boolean" then
    return type(value) ~= "boolean" and "must be true or false", "INVALID_TYPE"
  elseif kind == "string" or kind == "output" then
    return type(value) ~= "string" and "must be a string", "INVALID_TYPE"
  elseif element_of(kind) then
    return (type(value) ~= "table" or not value.elements) and "must be a list", "INVALID_TYPE"
  end
  return (type(value) ~= "table" or value.elements) and "must be an object", "INVALID_TYPE"
end

local function instead_of_null(name, kind)
  local empty = type(kind) == "table" and kind[1] or ""
  local clear = NEVER_EMPTY[name] and "" or 'send "' .. empty .. '" to clear it, or '
  return "must not be null: " .. clear .. "leave it out to keep it"
end

local understood

-- The elements of a list, each an object of this message.
local function understood_list(elements, message, field, violations)
  local values = {}
  for index, element in ipairs(elements) do
    local place = field .. "[" .. index - 1 .. "]"
    local problem, reason = mistake(field, message, element)
    if problem then
      violate(violations, place, reason, problem)
    else
      values[index] = understood(element, message, place .. ".", false, violations)
    end
  end
  return { elements = values }
end

-- The members in the names of the contract, each judged by its kind; false where it is wrong. `null` is absent, but to
-- PATCH, where it might mean to clear.
function understood(members, message, prefix, is_patch, violations)
  local values, seen = {}, {}
  for _, member in ipairs(members) do
    local name, value = names.aliases[member.name] or member.name, member.value
    local kind = names.messages[message][name]
    local field = prefix .. shown(member.name, "a field")
    local problem, reason = mistake(name, kind, value)
    if not kind then
      violate(violations, field, "UNKNOWN", "is not known")
    elseif seen[name] then
      violate(violations, field, "DUPLICATE", "is there twice")
    elseif value == NULL then
      if is_patch and kind ~= "output" and not element_of(kind) then
        violate(violations, field, "NULL", instead_of_null(name, kind))
      end
    elseif problem then
      violate(violations, field, reason, problem)
      values[name] = false
    elseif element_of(kind) then
      values[name] = understood_list(value.elements, element_of(kind), field, violations)
    elseif type(value) == "table" then
      values[name] = understood(value, kind, field .. ".", is_patch, violations)
    elseif kind ~= "output" then
      values[name] = value
    end
    seen[name] = true
  end
  return values
end

-- The parameters of a query, each judged by its kind. Only the names of the contract as they stand are known.
local function parameters(query, allowed, violations)
  local values, seen = {}, {}
  for pair in query:gmatch("[^&]+") do
    local key, text = pair:match("^([^=]*)=?(.*)$")
    local name, value = names.aliases[key] or key, percent_decoded((text:gsub("%+", " ")))
    local kind = allowed[name]
    local parameter = shown(key, "a parameter")
    if not kind then
      violate(violations, parameter, "UNKNOWN", "is not a known parameter")
    elseif seen[name] then
      violate(violations, parameter, "DUPLICATE", "is there twice")
    elseif not value then
      violate(violations, parameter, "INVALID_TYPE", "is not well formed")
    elseif kind == "boolean" and value ~= "true" and value ~= "false" then
      violate(violations, parameter, "INVALID_TYPE", "must be true or false")
    end
    values[name], seen[name] = value, true
  end
  return values
end

-- Puts the condition of the headers where the contract has it.
local function condition_into(profile, headers, creates, violations)
  local etag, absent = headers:get("if-match"), headers:get("if-none-match")
  -- An empty etag would be no condition to the service.
  if headers:getNumValues("if-match") > 1 or etag and (etag:find(",") or not etag:find("[!-~]")) then
    violate(violations, "If-Match", "INVALID_CONDITION", "must be one etag")
  elseif etag and etag ~= "*" then
    if profile.etag and profile.etag ~= etag then
      violate(violations, "If-Match", "MISMATCH", "is not the etag of the body")
    end
    profile.etag = etag
  end
  if absent and absent ~= "*" then
    violate(violations, "If-None-Match", "INVALID_CONDITION", "must be *")
  elseif absent and not creates then
    -- The service says what comes first: that there is no such profile, or that there is one.
    profile.etag = NO_ETAG
  end
end

-- The path's id is whose profile it is; the body may say it again.
local function drop_id(profile, path, violations)
  local id = path:match("^/profile/([^/]+)$")
  if id and profile.id and (percent_decoded(id) or ""):lower() ~= profile.id:lower() then
    violate(violations, "id", "MISMATCH", "is not the path's")
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

-- Whether the body is said to be JSON in UTF-8, as it stands.
local function is_json(headers)
  local kind = (headers:get("content-type") or "application/json"):lower()
  local charset = kind:match("charset%s*=%s*\"?([^%s;\"]*)") or "utf-8"
  local encoding = (headers:get("content-encoding") or "identity"):lower()
  return (kind:find("^application/json%s*$") or kind:find("^application/json%s*;"))
    and (charset == "utf-8" or charset == "utf8") and encoding == "identity"
end

-- The body for the transcoder, and whether the request may be repeated.
local function request_body(rpc, route, headers, text)
  if not route.message and text ~= "" then
    refuse("This request has no body.")
  elseif route.message and not is_json(headers) then
    refuse(NO_JSON, { status = "415" })
  elseif route.message and text == "" then
    refuse("A body is required.")
  end
  local violations = {}
  local path, query = headers:get(":path"):match("^([^?]*)%??(.*)$")
  local values = parameters(query, route.query, violations)
  local body
  if route.message then
    body = understood(read(text), route.message, "", rpc == "PatchProfile", violations)
    local profile = body
    if rpc == "UpdateProfile" then
      if body.action == nil then
        violate(violations, "action", "REQUIRED", "must be UPDATE_PROFILE")
      end
      if body.data == nil then
        violate(violations, "data", "REQUIRED", "is required")
      end
      profile = body.data or {}
      profile.dob = date_of_midnight(profile.dob)
    end
    drop_id(profile, path, violations)
    condition_into(profile, headers, rpc == "CreateProfile", violations)
  end
  refuse_violations(violations)
  return body and write(body), not body or is_request_id(values.requestId or body.requestId)
end

-- An answer of ours as a `google.rpc.Status`.
local function status_body(problem)
  local details = { { ["@type"] = RPC_TYPE .. "ErrorInfo", reason = problem.reason, domain = "profile-service" } }
  if problem.violations then
    details[2] = { ["@type"] = RPC_TYPE .. "BadRequest", fieldViolations = { elements = problem.violations } }
  end
  return write({ code = problem.code, message = problem.message, details = { elements = details } })
end

-- Answers with what was refused. What else went wrong is a fault of this file.
local function answer(handle, problem)
  if type(problem) ~= "table" then
    handle:logErr(problem)
    problem = { status = "500", code = INTERNAL, reason = "INTERNAL", message = "The gateway failed." }
  end
  handle:streamInfo():dynamicMetadata():set("rest", "refused", true)
  handle:respond({ [":status"] = problem.status }, status_body(problem))
end

function envoy_on_request(handle)
  local rpc = handle:streamInfo():routeName()
  local route = names.routes[rpc]
  if not route then
    return
  end
  local body = handle:body()
  local text = body and body:getBytes(0, body:length()) or ""
  local headers = handle:headers()
  local fine, made, repeatable = pcall(request_body, rpc, route, headers, text)
  if not fine then
    return answer(handle, made)
  end
  headers:remove("content-encoding")
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

-- The service's error with its fields named as in the body of a request. Only one with violations names fields.
local function in_names_of_rest(text)
  local names_fields = text:find('iolations":[', 1, true)
  return names_fields and text:gsub("%f[%w]profile%.(%l)", "%1"):gsub("_(%l)", string.upper) or text
end

local function envelope(status, text)
  if status == "200" then
    local user = text:gsub('"dob":"(%d%d%d%d%-%d%d%-%d%d)"', '"dob":"%1T00:00:00.000Z"')
    return '{"status":200,"success":true,"message":"Profile updated successfully","data":{"user":' .. user .. "}}"
  end
  local message = ""
  for _, member in ipairs(read(text)) do
    message = member.name == "message" and member.value or message
  end
  return '{"status":' .. status .. ',"success":false,"message":' .. write(message) .. "}"
end

-- Envoy's own answers to requests that say that they are gRPC are gRPC, which is not spoken here.
local function answer_grpc(handle, enveloped)
  local text = status_body({ code = INVALID_ARGUMENT, reason = "INVALID_MESSAGE", message = NO_JSON })
  handle:body(true):setBytes(enveloped and envelope("415", text) or text)
  local headers = handle:headers()
  headers:replace(":status", "415")
  headers:replace("content-type", "application/json")
end

function envoy_on_response(handle)
  local rpc = handle:streamInfo():routeName():match("^%a*")
  local enveloped = rpc == "UpdateProfile"
  local headers = handle:headers()
  local status = headers:get(":status")
  if (headers:get("content-type") or ""):find("^application/grpc") then
    return answer_grpc(handle, enveloped)
  elseif status == "200" and not enveloped and rpc ~= "CreateProfile" then
    return
  end
  local body = handle:body()
  if not body then
    return
  end
  local text = body:getBytes(0, body:length())
  headers = handle:headers()
  if status == "200" and not enveloped then
    -- What was only validated has no etag, for nothing was created.
    if headers:get("etag") then
      headers:replace(":status", "201")
      headers:replace("location", "/profile/" .. text:match('"id":"([^"]+)"'))
    end
    return
  elseif status ~= "200" then
    local code, reason = text:match('^{"code":(%d+)'), text:match('"reason":"([A-Z_]+)"')
    if reason == "ETAG_MISMATCH" then
      status = "412"
    elseif tonumber(code) == OUT_OF_RANGE then
      status = "413"
    elseif enveloped and DOCUMENTED[reason] then
      status = "400"
    end
    headers:replace(":status", status)
  end
  local refused = (handle:streamInfo():dynamicMetadata():get("rest") or {}).refused
  text = refused and text or in_names_of_rest(text)
  body:setBytes(enveloped and envelope(status, text) or text)
  headers:replace("content-type", "application/json")
end
