// An HTTP/2 server by Node (nghttp2): http2_origin.mjs LEAF_FILE. Prints its port, echoes each
// body as it comes, and counts it in a trailer.
import fs from 'node:fs'
import http2 from 'node:http2'

const pem = fs.readFileSync(process.argv[2])
const server = http2.createSecureServer({ key: pem, cert: pem })
server.on('stream', stream => {
    let count = 0
    stream.respond({ ':status': 200 }, { waitForTrailers: true })
    stream.on('wantTrailers', () => stream.sendTrailers({ 'x-sum': String(count) }))
    stream.on('data', data => { count += data.length })
    stream.on('error', () => {})
    stream.pipe(stream)
})
server.listen(0, '127.0.0.1', () => console.log(server.address().port))
