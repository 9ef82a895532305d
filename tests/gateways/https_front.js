// Ends TLS in front of a gateway, with Node's https: `node https_front.js PORT BEHIND_PORT CERTIFICATE KEY`.
'use strict'
const fs = require('node:fs')
const http = require('node:http')
const https = require('node:https')

const [port, behind, cert, key] = process.argv.slice(2)
const agent = new http.Agent({ keepAlive: true })

const server = https.createServer({ cert: fs.readFileSync(cert), key: fs.readFileSync(key) }, (request, reply) => {
  const { method, url: path, rawHeaders } = request
  const headers = {}
  for (let at = 0; at < rawHeaders.length; at += 2) headers[rawHeaders[at]] = rawHeaders[at + 1]
  const inner = http.request({ host: '127.0.0.1', port: behind, agent, method, path, headers }, (answer) => {
    reply.writeHead(answer.statusCode, answer.headers)
    answer.pipe(reply)
  })
  inner.on('error', () => reply.destroy())
  reply.on('close', () => inner.destroy())
  request.pipe(inner)
})
server.keepAliveTimeout = 60000
server.listen(Number(port), '127.0.0.1')
