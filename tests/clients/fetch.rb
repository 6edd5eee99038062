# Ruby's client of the matrix: `ruby fetch.rb URL` prints what came back.
require "net/http"

answer = Net::HTTP.get_response(URI(ARGV[0]))
abort "#{answer.code} #{answer.body}" unless answer.code == "200"
puts answer.body
