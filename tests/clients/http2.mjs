// An HTTP/2 client of the matrix by Node (nghttp2): http2.mjs PROXY_PORT CA_FILE URL.
// Ten calls at once over one connection, each with a body of its own size that is echoed; of
// /big the hash; of /one, which is refused, the reason, and then /two over the same connection.
import crypto from 'node:crypto'
import fs from 'node:fs'
import http2 from 'node:http2'
import net from 'node:net'
import tls from 'node:tls'

const [port, ca, address] = process.argv.slice(2)
const url = new URL(address)
const place = `${url.hostname}:443`

function tunnel() {
    return new Promise((resolve, reject) => {
        const socket = net.connect(Number(port), '127.0.0.1')
        socket.once('error', reject)
        socket.once('data', head => {
            const line = head.toString().split('\r\n')[0]
            if (!line.startsWith('HTTP/1.1 200')) return reject(new Error(line))
            const options = { socket, servername: url.hostname, ALPNProtocols: ['h2'], ca: fs.readFileSync(ca) }
            const secure = tls.connect(options, () => resolve(secure))
            secure.once('error', reject)
        })
        socket.write(`CONNECT ${place} HTTP/1.1\r\nHost: ${place}\r\n\r\n`)
    })
}

function call(session, size) {
    return new Promise((resolve, reject) => {
        const stream = session.request({ ':path': url.pathname, ':method': 'POST' })
        let status, count = 0, trailer = ''
        stream.on('response', head => { status = head[':status'] })
        stream.on('trailers', fields => { trailer = fields['x-sum'] ?? '' })
        stream.on('data', data => { count += data.length })
        stream.on('error', reject)
        stream.on('close', () => resolve(`${status} ${count} ${trailer}`.trim()))
        stream.end(Buffer.alloc(size, 'a'))
    })
}

function get(session, path, read) {
    return new Promise((resolve, reject) => {
        const stream = session.request({ ':path': path })
        const hash = crypto.createHash('sha256')
        let status, text = ''
        stream.on('response', head => { status = head[':status'] })
        stream.on('data', data => { read === 'hash' ? hash.update(data) : (text += data) })
        stream.on('error', reject)
        stream.on('close', () => {
            const found = text.startsWith('{') ? JSON.parse(text).reason : text
            resolve(`${status} ${read === 'hash' ? hash.digest('hex') : found}`)
        })
    })
}

const secure = await tunnel()
const session = http2.connect(url.origin, { createConnection: () => secure })
if (url.pathname === '/big') {
    console.log(await get(session, '/big', 'hash'))
} else if (url.pathname === '/one') {
    console.log(await get(session, '/one' + url.search, 'text'))
    console.log(await get(session, '/two', 'text'))
} else {
    const sizes = Array.from({ length: 10 }, (_, number) => number * 100_000)
    for (const line of await Promise.all(sizes.map(size => call(session, size)))) console.log(line)
}
session.close()
