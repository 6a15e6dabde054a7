-- Sends one fixed request over and over, and prints what came of it as JSON.
-- Argument: a file of header lines, or none for a bare request. Their order is kept, which wrk.headers would not do.

function init(args)
   local lines = { "GET " .. wrk.path .. " HTTP/1.1", "Host: " .. wrk.headers["Host"] }
   if args[1] then
      for line in io.lines(args[1]) do
         lines[#lines + 1] = line
      end
   end
   local request = table.concat(lines, "\r\n") .. "\r\n\r\n"
   wrk.format = function() return request end
end

function done(summary, latency)
   local errors = summary.errors
   io.write(string.format(
      '\n{"requests":%d,"microseconds":%d,"bytes":%d,"broken":%d,"refused":%d,"p50":%d,"p99":%d}\n',
      summary.requests, summary.duration, summary.bytes,
      errors.connect + errors.read + errors.write + errors.timeout, errors.status,
      latency:percentile(50), latency:percentile(99)))
end
