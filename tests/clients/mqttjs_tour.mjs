// mqtt.js against a broker: QoS 0 to 2, retained, will, offline queue, shared subscription, properties of MQTT 5.
//
// usage: mqttjs_tour.mjs URL {3|4|5} [CA-FILE]

import assert from 'node:assert/strict'
import fs from 'node:fs'
import mqtt from 'mqtt'

const SOON = 20_000
const [url, level, ca] = process.argv.slice(2)
const protocolVersion = Number(level)
const v5 = protocolVersion === 5
const root = `mqttjs/${new URL(url).protocol}/${level}`

function within (promise, what) {
  let timer
  const late = new Promise((_resolve, reject) => { timer = setTimeout(() => reject(new Error(`too late: ${what}`)), SOON) })
  return Promise.race([promise, late]).finally(() => clearTimeout(timer))
}

class Client {
  static async open (name, { clean = true, will } = {}) {
    const client = new Client()
    client.messages = []
    client.waiting = []
    client.mqtt = mqtt.connect(url, {
      clientId: `mqttjs-${name}`,
      protocolVersion,
      protocolId: protocolVersion === 3 ? 'MQIsdp' : 'MQTT',
      clean,
      will,
      ca: ca ? [fs.readFileSync(ca)] : undefined,
      reconnectPeriod: 0,
      properties: v5 ? { sessionExpiryInterval: clean ? 0 : 100 } : undefined
    })
    client.mqtt.on('message', (topic, payload, packet) => {
      const message = { ...packet, topic, text: payload.toString(), length: payload.length }
      const waiting = client.waiting.shift()
      if (waiting) waiting(message)
      else client.messages.push(message)
    })
    client.connack = await within(new Promise((resolve, reject) => {
      client.mqtt.once('connect', resolve)
      client.mqtt.once('error', reject)
    }), `connection of ${name}`)
    return client
  }

  subscribe (filter, qos) { return within(this.mqtt.subscribeAsync(filter, { qos }), `subscription to ${filter}`) }
  publish (topic, payload, options) { return within(this.mqtt.publishAsync(topic, payload, options), `publication on ${topic}`) }

  take () {
    if (this.messages.length) return this.messages.shift()
    return within(new Promise(resolve => this.waiting.push(resolve)), 'a message')
  }

  end () { return within(this.mqtt.endAsync(), 'the end') }
  die () { this.mqtt.stream.destroy() }
}

const a = await Client.open('a')
const b = await Client.open('b')
await b.subscribe(`${root}/qos/#`, 2)
for (const qos of [0, 1, 2]) {
  for (const size of [0, 5, 70_000]) {
    await a.publish(`${root}/qos/${qos}`, Buffer.alloc(size, 'x'), { qos })
    const message = await b.take()
    assert.deepEqual([message.topic, message.qos, message.length, message.retain], [`${root}/qos/${qos}`, qos, size, false])
  }
}

await a.publish(`${root}/kept`, 'kept', { qos: 1, retain: true })
await b.subscribe(`${root}/kept`, 1)
const kept = await b.take()
assert.deepEqual([kept.text, kept.retain], ['kept', true])
await a.publish(`${root}/kept`, '', { qos: 1, retain: true })
assert.equal((await b.take()).length, 0)

await b.subscribe(`${root}/will`, 1)
const mortal = await Client.open('mortal', { will: { topic: `${root}/will`, payload: Buffer.from('gone'), qos: 1, retain: false } })
mortal.mqtt.on('error', () => {})
mortal.die()
assert.equal((await b.take()).text, 'gone')

let sleeper = await Client.open('sleeper', { clean: false })
await sleeper.subscribe(`${root}/queue`, 2)
await sleeper.end()
const numbers = [...Array(20).keys()]
for (const number of numbers) await a.publish(`${root}/queue`, `${number}`, { qos: number < 10 ? 1 : 2 })
sleeper = await Client.open('sleeper', { clean: false })
assert.equal(sleeper.connack.sessionPresent, protocolVersion !== 3)
for (const number of numbers) assert.equal((await sleeper.take()).text, `${number}`)
await sleeper.end()
await (await Client.open('sleeper')).end()

const members = [await Client.open('member1'), await Client.open('member2')]
for (const member of members) await member.subscribe(`$share/group/${root}/shared`, 1)
const shared = []
const all = new Promise(resolve => {
  for (const member of members) {
    member.mqtt.on('message', (_topic, payload) => {
      shared.push(Number(payload.toString()))
      if (shared.length === numbers.length) resolve()
    })
  }
})
for (const number of numbers) await a.publish(`${root}/shared`, `${number}`, { qos: 1 })
await within(all, 'all shared messages')
assert.deepEqual(shared.sort((x, y) => x - y), numbers)
for (const member of members) await member.end()

if (v5) {
  const properties = {
    contentType: 'text/plain',
    responseTopic: `${root}/answer`,
    correlationData: Buffer.from([0, 1]),
    messageExpiryInterval: 60,
    payloadFormatIndicator: true,
    userProperties: { k: ['1', '2'] }
  }
  await a.publish(`${root}/qos/rich`, 'x', { qos: 2, properties })
  const got = (await b.take()).properties
  assert.ok(got.messageExpiryInterval >= 55 && got.messageExpiryInterval <= 60)
  assert.deepEqual({ ...got, userProperties: { ...got.userProperties } }, { ...properties, messageExpiryInterval: got.messageExpiryInterval })
}

await a.end()
await b.end()
console.log('ok')
