-- What wrk sends and says for `just bench`. Everything comes from the environment, so that each request is the same bytes.

wrk.method = os.getenv("BENCH_METHOD")

local length = tonumber(os.getenv("BENCH_BODY_LEN"))
if length > 0 then
  wrk.body = string.rep("x", length)
end

function done(summary, latency)
  local errors = summary.errors
  io.write(string.format(
    '{"requests":%d,"duration_us":%d,"p50_us":%d,"p99_us":%d,"p999_us":%d,"status":%d,"connect":%d,"read":%d,"write":%d,"timeout":%d}\n',
    summary.requests, summary.duration,
    latency:percentile(50), latency:percentile(99), latency:percentile(99.9),
    errors.status, errors.connect, errors.read, errors.write, errors.timeout))
end
