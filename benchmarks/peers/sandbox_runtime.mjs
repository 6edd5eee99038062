// Serves the intercepting proxy of sandbox-runtime as its own manager does, every host allowed.
// node sandbox_runtime.mjs PACKAGE_FOLDER PORT CA_FILE_TO_WRITE
import { writeFileSync } from 'node:fs'
import { pathToFileURL } from 'node:url'

const [folder, port, caFile] = process.argv.slice(2)
const part = name => import(pathToFileURL(`${folder}/dist/sandbox/${name}.js`))
const { createHttpProxyServer } = await part('http-proxy')
const { createMitmCA } = await part('mitm-ca')

const mitmCA = createMitmCA({})
writeFileSync(caFile, mitmCA.certPem)
createHttpProxyServer({ filter: () => true, mitmCA }).listen(Number(port), '127.0.0.1')
