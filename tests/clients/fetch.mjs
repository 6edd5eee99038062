// Node's clients of the matrix: `node fetch.mjs WAY URL` prints what came back.
// `fetch` and `https` are Node's own and know no proxy before Node 22.21; the other two are from
// npm, found through NODE_PATH.
import { createRequire } from 'node:module'
import https from 'node:https'

const require = createRequire(import.meta.url)
const [way, url] = process.argv.slice(2)

async function by_fetch(get = fetch, options = {}) {
  const answer = await get(url, options)
  const text = await answer.text()
  if (!answer.ok) throw new Error(`${answer.status} ${text}`)
  return text
}

function by_https(agent) {
  return new Promise((resolve, reject) => {
    https.get(url, { agent }, (answer) => {
      let text = ''
      answer.on('data', (data) => { text += data })
      answer.on('end', () => answer.statusCode === 200
        ? resolve(text) : reject(new Error(`${answer.statusCode} ${text}`)))
    }).on('error', reject)
  })
}

const ways = {
  fetch: () => by_fetch(),
  https: () => by_https(),
  undici: () => {
    const { fetch, EnvHttpProxyAgent } = require('undici')
    return by_fetch(fetch, { dispatcher: new EnvHttpProxyAgent() })
  },
  agent: () => {
    const { ProxyAgent } = require('proxy-agent')
    return by_https(new ProxyAgent())
  }
}

console.log(await ways[way]())
