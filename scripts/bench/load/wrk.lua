-- Sends one fixed request over and over, looks at every answer, and prints what came of it as JSON.
-- Arguments: the body that every answer must have; a file of header lines, or none for a bare request. The order of
-- the lines is kept, which wrk.headers would not do.

wrong = 0
local threads = {}

function setup(thread)
   threads[#threads + 1] = thread
end

function init(args)
   local body = args[1]
   local lines = { "GET " .. wrk.path .. " HTTP/1.1", "Host: " .. wrk.headers["Host"] }
   if args[2] then
      for line in io.lines(args[2]) do
         lines[#lines + 1] = line
      end
   end
   local request = table.concat(lines, "\r\n") .. "\r\n\r\n"
   wrk.format = function() return request end
   response = function(status, _, received)
      if status ~= 200 or received ~= body then
         wrong = wrong + 1
      end
   end
end

function done(summary)
   local errors = summary.errors
   local mistaken = 0
   for _, thread in ipairs(threads) do
      mistaken = mistaken + thread:get("wrong")
   end
   io.write(string.format(
      '\n{"requests":%d,"microseconds":%d,"broken":%d,"wrong":%d}\n',
      summary.requests, summary.duration,
      errors.connect + errors.read + errors.write + errors.timeout, mistaken))
end
