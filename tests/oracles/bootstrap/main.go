// Opens the bootstrap data of k3s and RKE2 with nothing but Go's standard library, as k3s reads it.
//
// Written from the format (docs/formats/containers.md, "k3s and RKE2"), to judge what snaptool seals: key derivation,
// cipher and JSON are Go's own, and so is the reading of the configuration, which k3s does with encoding/json.
//
// Input: one JSON object a line, {"passphrase", "value" in base64}. Output: one a line: the key under which a server
// looks for it, the names of the files, the configuration and state in base64, or an error.
package main

import (
	"bufio"
	"bytes"
	"crypto/aes"
	"crypto/cipher"
	"crypto/pbkdf2"
	"crypto/sha1"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"sort"
	"strings"
	"time"
)

type question struct {
	Passphrase string `json:"passphrase"`
	Value      []byte `json:"value"`
}

type file struct {
	Timestamp time.Time
	Content   []byte
}

// What k3s reads of an encryption-config.json.
type configuration struct {
	Kind       string `json:"kind"`
	APIVersion string `json:"apiVersion"`
	Resources  []struct {
		Resources []string                     `json:"resources"`
		Providers []map[string]json.RawMessage `json:"providers"`
	} `json:"resources"`
}

type answer struct {
	Key       string   `json:"key"`
	Names     []string `json:"names"`
	Config    []byte   `json:"config"`
	State     string   `json:"state"`
	Providers []string `json:"providers"`
	Error     string   `json:"error"`
}

func open(q question) ([]byte, error) {
	salt, sealed, found := strings.Cut(string(q.Value), ":")
	if !found {
		return nil, errors.New("no salt")
	}
	raw, err := base64.StdEncoding.DecodeString(sealed)
	if err != nil {
		return nil, err
	}
	key, err := pbkdf2.Key(sha1.New, q.Passphrase, []byte(salt), 4096, 32)
	if err != nil {
		return nil, err
	}
	block, err := aes.NewCipher(key)
	if err != nil {
		return nil, err
	}
	gcm, err := cipher.NewGCM(block)
	if err != nil {
		return nil, err
	}
	if len(raw) < gcm.NonceSize() {
		return nil, errors.New("too short")
	}
	return gcm.Open(nil, raw[:gcm.NonceSize()], raw[gcm.NonceSize():], nil)
}

func judge(q question) (a answer) {
	digest := sha256.Sum256([]byte(q.Passphrase))
	a.Key = "/bootstrap/" + hex.EncodeToString(digest[:])[:12]
	plaintext, err := open(q)
	if err != nil {
		a.Error = err.Error()
		return
	}
	files := map[string]file{}
	if err := json.Unmarshal(plaintext, &files); err != nil {
		old := map[string][]byte{} // until late 2021: contents without times
		if json.Unmarshal(plaintext, &old) != nil {
			a.Error = err.Error()
			return
		}
		for name, content := range old {
			files[name] = file{Content: content}
		}
	}
	for name := range files {
		a.Names = append(a.Names, name)
	}
	sort.Strings(a.Names)
	a.Config, a.State = files["EncryptionConfig"].Content, string(files["EncryptionHash"].Content)
	if len(a.Config) == 0 {
		return
	}
	sum := sha256.Sum256(a.Config)
	if !strings.HasSuffix(a.State, "-"+hex.EncodeToString(sum[:])) {
		a.Error = "the state is of another configuration"
		return
	}
	var config configuration
	decoder := json.NewDecoder(bytes.NewReader(a.Config))
	decoder.DisallowUnknownFields()
	if err := decoder.Decode(&config); err != nil {
		a.Error = err.Error()
		return
	}
	if len(config.Resources) != 1 {
		a.Error = fmt.Sprintf("%d elements of resources", len(config.Resources))
		return
	}
	for _, provider := range config.Resources[0].Providers {
		for kind := range provider {
			a.Providers = append(a.Providers, kind)
		}
	}
	return
}

func main() {
	lines := bufio.NewScanner(os.Stdin)
	lines.Buffer(nil, 64<<20)
	out := json.NewEncoder(os.Stdout)
	for lines.Scan() {
		var q question
		if err := json.Unmarshal(lines.Bytes(), &q); err != nil {
			out.Encode(answer{Error: err.Error()})
			continue
		}
		out.Encode(judge(q))
	}
}
